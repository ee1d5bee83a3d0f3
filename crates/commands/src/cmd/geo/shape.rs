//! What is searched: a circle or a box around a place, or a polygon, and the cells of the map that together cover it.

use super::hash::{Cell, EARTH, Place, STEPS, degrees, radians};

/// The form of an area.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// All within so many units.
    Circle(f64),
    /// All within a box of so many units from west to east and from south to north.
    Box {
        /// From west to east.
        width: f64,
        /// From south to north.
        height: f64,
    },
    /// All within these corners, on a flat map. Valkey 9 has it.
    Polygon(Vec<Place>),
}

/// The middle of corners: of the points that they are in space, projected back to the surface.
pub fn centroid(corners: &[Place]) -> Place {
    let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
    for corner in corners {
        let (longitude, latitude) = (radians(corner.longitude), radians(corner.latitude));
        x += latitude.cos() * longitude.cos();
        y += latitude.cos() * longitude.sin();
        z += latitude.sin();
    }
    let (longitude, latitude) = (f64::atan2(y, x), f64::atan2(z, (x * x + y * y).sqrt()));
    Place { longitude: degrees(longitude), latitude: degrees(latitude) }
}

/// Whether a line from the place to the east crosses the sides an odd number of times (Franklin's PNPOLY).
fn is_inside(corners: &[Place], place: Place) -> bool {
    let crossing = |a: &Place, b: &Place| {
        (b.longitude - a.longitude) * (place.latitude - a.latitude) / (b.latitude - a.latitude) + a.longitude
    };
    let mut inside = false;
    let mut before = corners.last();
    for a in corners {
        if let Some(b) = before
            && (a.latitude > place.latitude) != (b.latitude > place.latitude)
            && place.longitude < crossing(a, b)
        {
            inside = !inside;
        }
        before = Some(a);
    }
    inside
}

/// An area around a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Its middle.
    pub center: Place,
    /// Its form.
    pub form: Form,
    /// Meters in a unit.
    pub unit: f64,
}

/// The corners between which a shape lies.
struct Bounds {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

/// Half the length of the equator on the map of the web, in meters.
const HALF_MAP: f64 = 20_037_726.37;

/// How many bits a cell's coordinates may have so that it and those around it cover a circle.
fn steps_for(radius: f64, latitude: f64) -> u32 {
    if radius == 0.0 {
        return STEPS;
    }
    let mut steps = 1i32;
    let mut width = radius;
    while width < HALF_MAP {
        width *= 2.0;
        steps += 1;
    }
    steps -= 2;
    // Toward the poles the cells are narrow.
    steps -= i32::from(!(-66.0..=66.0).contains(&latitude)) + i32::from(!(-80.0..=80.0).contains(&latitude));
    steps.clamp(1, STEPS as i32) as u32
}

impl Shape {
    /// The distance of a place within it from its middle, in meters; `None` if the place is outside.
    pub fn distance_within(&self, place: Place) -> Option<f64> {
        match &self.form {
            Form::Circle(radius) => {
                let distance = self.center.distance(place);
                // Of two places opposite each other the distance may come out as no number, which is not too far.
                if distance > radius * self.unit { None } else { Some(distance) }
            }
            Form::Polygon(corners) => is_inside(corners, place).then(|| self.center.distance(place)),
            Form::Box { width, height } => {
                if place.north_distance(self.center) > height * self.unit / 2.0 {
                    return None;
                }
                let below = Place { latitude: place.latitude, ..self.center };
                if place.distance(below) > width * self.unit / 2.0 {
                    return None;
                }
                Some(self.center.distance(place))
            }
        }
    }

    fn bounds(&self) -> Bounds {
        let (half_width, half_height) = match &self.form {
            Form::Circle(radius) => (self.unit * radius, self.unit * radius),
            Form::Box { width, height } => (self.unit * (width / 2.0), self.unit * (height / 2.0)),
            Form::Polygon(corners) => {
                let longitudes = || corners.iter().map(|corner| corner.longitude);
                let latitudes = || corners.iter().map(|corner| corner.latitude);
                return Bounds {
                    west: longitudes().fold(f64::INFINITY, f64::min),
                    south: latitudes().fold(f64::INFINITY, f64::min),
                    east: longitudes().fold(f64::NEG_INFINITY, f64::max),
                    north: latitudes().fold(f64::NEG_INFINITY, f64::max),
                };
            }
        };
        let Place { longitude, latitude } = self.center;
        let north = degrees(half_height / EARTH);
        // At the edge nearer to a pole a degree of longitude is shortest, so the width spans the most of them there.
        let edge = if latitude < 0.0 { latitude - north } else { latitude + north };
        let east = degrees(half_width / EARTH / radians(edge).cos());
        Bounds { west: longitude - east, south: latitude - north, east: longitude + east, north: latitude + north }
    }

    /// The cells to search, in this order.
    pub fn cells(&self) -> Vec<Cell> {
        let bounds = self.bounds();
        let radius = self.unit
            * match &self.form {
                Form::Circle(radius) => *radius,
                // To the farthest corner of the bounds.
                Form::Polygon(_) => [bounds.west, bounds.east]
                    .into_iter()
                    .flat_map(|longitude| [bounds.north, bounds.south].map(|latitude| Place { longitude, latitude }))
                    .map(|corner| self.center.distance(corner))
                    .fold(0.0, f64::max),
                Form::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
            };
        let mut steps = steps_for(radius, self.center.latitude);
        let mut cell = Cell::at(self.center, steps);
        let (east, west) = (cell.neighbour(1, 0).spans().0, cell.neighbour(-1, 0).spans().0);
        let (north, south) = (cell.neighbour(0, 1).spans().1, cell.neighbour(0, -1).spans().1);
        let too_small =
            north.max < bounds.north || south.min > bounds.south || east.max < bounds.east || west.min > bounds.west;
        if steps > 1 && too_small {
            steps -= 1;
            cell = Cell::at(self.center, steps);
        }
        let (longitudes, latitudes) = cell.spans();
        // Sides on which the middle cell reaches beyond the area. With one step, all cells are neighbours of all.
        let apart = steps >= 2;
        let useless = |east: i32, north: i32| {
            apart
                && ((north < 0 && latitudes.min < bounds.south)
                    || (north > 0 && latitudes.max > bounds.north)
                    || (east < 0 && longitudes.min < bounds.west)
                    || (east > 0 && longitudes.max > bounds.east))
        };
        let mut cells = vec![cell];
        for (east, north) in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
            let next = cell.neighbour(east, north);
            // In the widest searches two neighbours are one cell.
            let again = cells.len() > 1 && cells.last() == Some(&next);
            if !useless(east, north) && !again {
                cells.push(next);
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use ardb_base::random::Random;

    use super::*;

    fn random_place(random: &mut Random) -> Place {
        let part = |random: &mut Random, half: f64| (random.below(2_000_001) as f64 / 1_000_000.0 - 1.0) * half;
        Place { longitude: part(random, 180.0), latitude: part(random, 80.0) }
    }

    #[test]
    fn the_cells_hold_what_is_within() {
        let mut random = Random::new(11);
        let mut found = 0;
        for _ in 0..3000 {
            let center = Place { latitude: random.below(120) as f64 - 60.0, ..random_place(&mut random) };
            let size = 10f64.powf(random.below(5) as f64) * (1.0 + random.below(100) as f64 / 10.0);
            let form =
                if random.one_in(2) { Form::Circle(size) } else { Form::Box { width: size, height: size * 1.5 } };
            let shape = Shape { center, form, unit: 1.0 };
            let cells = shape.cells();
            for _ in 0..20 {
                let near = |random: &mut Random| (random.below(2001) as f64 - 1000.0) / 1000.0 * size / 100_000.0;
                let place = Place {
                    longitude: (center.longitude + near(&mut random)).clamp(-180.0, 180.0),
                    latitude: center.latitude + near(&mut random),
                };
                let score = place.score() as f64;
                if shape.distance_within(Place::of_score(score)).is_some() {
                    found += 1;
                    let held = cells.iter().any(|cell| (cell.scores().min..cell.scores().max).contains(&score));
                    assert!(held, "{place:?} in {shape:?}");
                }
            }
        }
        assert!(found > 5000, "{found}");
    }

    #[test]
    fn polygons_have_an_inside() {
        let at = |longitude: f64, latitude: f64| Place { longitude, latitude };
        // An arrow to the north, with a notch in the south.
        let corners = vec![at(0.0, 0.0), at(10.0, 20.0), at(20.0, 0.0), at(10.0, 5.0)];
        let shape = Shape { center: centroid(&corners), form: Form::Polygon(corners), unit: 1.0 };
        for (place, inside) in [
            (at(10.0, 10.0), true),
            (at(10.0, 4.0), false),
            (at(2.0, 1.5), true),
            (at(18.0, 1.5), true),
            (at(1.0, 10.0), false),
            (at(10.0, 21.0), false),
        ] {
            assert_eq!(shape.distance_within(place).is_some(), inside, "{place:?}");
            let score = place.score() as f64;
            let covered = shape.cells().iter().any(|cell| (cell.scores().min..cell.scores().max).contains(&score));
            assert!(covered || !inside, "{place:?}");
        }
    }

    #[test]
    fn no_cell_comes_twice() {
        let mut random = Random::new(5);
        for _ in 0..3000 {
            let radius = 10f64.powf(random.below(9) as f64);
            let cells = Shape { center: random_place(&mut random), form: Form::Circle(radius), unit: 1.0 }.cells();
            for (at, cell) in cells.iter().enumerate() {
                assert!(!cells[..at].contains(cell), "{cells:?}");
            }
        }
    }
}
