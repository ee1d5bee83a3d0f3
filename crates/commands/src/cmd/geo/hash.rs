//! Places as numbers of 52 bits: the bits of longitude and latitude in turn, so that places near each other mostly have near numbers.
//!
//! A [`Cell`] is a rectangle of the map, named by the first bits of the numbers in it; a place is the middle of a cell with all bits. The
//! arithmetic, the order of its steps included, is Redis's: scores, distances and what is on which side of a line must be the same to the last bit.

use ardb_types::zset::ScoreRange;

/// Bits of each coordinate in a score.
pub const STEPS: u32 = 26;
/// The longitudes that there are.
pub const LONGITUDES: Span = Span { min: -180.0, max: 180.0 };
/// The latitudes that there are: those of the square map of the web.
pub const LATITUDES: Span = Span { min: -85.051_128_78, max: 85.051_128_78 };
/// All latitudes, which the text form goes by.
const ALL_LATITUDES: Span = Span { min: -90.0, max: 90.0 };
/// Radius of the earth, in meters.
pub const EARTH: f64 = 6_372_797.560_856;

const EVEN: u64 = 0x5555_5555_5555_5555;

/// From one coordinate to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Span {
    fn holds(self, value: f64) -> bool {
        value >= self.min && value <= self.max
    }

    /// The part in which a value lies, of 2^steps.
    fn part(self, value: f64, steps: u32) -> u32 {
        ((value - self.min) / (self.max - self.min) * (1u64 << steps) as f64) as u32
    }

    /// The part with this number, of 2^steps.
    fn of_part(self, part: u32, steps: u32) -> Span {
        let all = (1u64 << steps) as f64;
        let edge = |part: u32| self.min + (f64::from(part) / all) * (self.max - self.min);
        Span { min: edge(part), max: edge(part.wrapping_add(1)) }
    }

    fn middle(self, within: Span) -> f64 {
        ((self.min + self.max) / 2.0).min(within.max).max(within.min)
    }
}

/// A place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Degrees east.
    pub longitude: f64,
    /// Degrees north.
    pub latitude: f64,
}

impl Place {
    /// Whether there is such a place on the map.
    pub fn is_on_map(self) -> bool {
        LONGITUDES.holds(self.longitude) && LATITUDES.holds(self.latitude)
    }

    /// The score under which it is kept.
    pub fn score(self) -> u64 {
        Cell::at(self, STEPS).bits
    }

    /// The place that a score stands for. Any score stands for one.
    pub fn of_score(score: f64) -> Place {
        Cell { bits: bits_of(score), steps: STEPS }.middle()
    }

    /// Meters to another place, along the surface of the earth.
    pub fn distance(self, other: Place) -> f64 {
        let v = ((radians(other.longitude) - radians(self.longitude)) / 2.0).sin();
        if v == 0.0 {
            return self.north_distance(other);
        }
        let (from, to) = (radians(self.latitude), radians(other.latitude));
        let u = ((to - from) / 2.0).sin();
        let a = u * u + from.cos() * to.cos() * v * v;
        2.0 * EARTH * a.sqrt().asin()
    }

    /// Meters to the latitude of another place.
    pub fn north_distance(self, other: Place) -> f64 {
        EARTH * (radians(other.latitude) - radians(self.latitude)).abs()
    }

    /// The usual text form, eleven letters. Its last letter has no bits left and is always `0`.
    pub fn text(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = interleave(ALL_LATITUDES.part(self.latitude, STEPS), LONGITUDES.part(self.longitude, STEPS));
        let mut text = [b'0'; 11];
        for (at, letter) in text[..10].iter_mut().enumerate() {
            *letter = ALPHABET[(bits >> (47 - 5 * at)) as usize & 31];
        }
        text
    }
}

const DEGREE: f64 = std::f64::consts::PI / 180.0;

/// Degrees as radians.
pub fn radians(degrees: f64) -> f64 {
    degrees * DEGREE
}

/// Radians as degrees. The standard library multiplies, which is not the same to the last bit.
pub fn degrees(radians: f64) -> f64 {
    radians / DEGREE
}

/// The bits of a score that may be any float: what a conversion in C to a `uint64_t` gives on the machines that Redis runs on.
fn bits_of(score: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if score < HALF {
        return score as i64 as u64;
    }
    let above = score - HALF;
    if above < HALF { above as i64 as u64 ^ 1 << 63 } else { 0 }
}

/// Spreads the bits out to the even places.
fn spread(value: u32) -> u64 {
    let mut bits = u64::from(value);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, EVEN),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// Gathers the bits at the even places.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & EVEN;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

fn interleave(latitude: u32, longitude: u32) -> u64 {
    spread(latitude) | spread(longitude) << 1
}

/// A rectangle of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    bits: u64,
    steps: u32,
}

impl Cell {
    /// The cell of this many bits for each coordinate in which a place lies.
    pub fn at(place: Place, steps: u32) -> Cell {
        let (latitude, longitude) = (LATITUDES.part(place.latitude, steps), LONGITUDES.part(place.longitude, steps));
        Cell { bits: interleave(latitude, longitude), steps }
    }

    /// Its longitudes and latitudes.
    pub fn spans(self) -> (Span, Span) {
        (LONGITUDES.of_part(gather(self.bits >> 1), self.steps), LATITUDES.of_part(gather(self.bits), self.steps))
    }

    fn middle(self) -> Place {
        let (longitudes, latitudes) = self.spans();
        Place { longitude: longitudes.middle(LONGITUDES), latitude: latitudes.middle(LATITUDES) }
    }

    /// The cell so many to the east and to the north, each -1, 0 or 1; beyond an edge of the map comes the opposite one.
    pub fn neighbour(self, east: i32, north: i32) -> Cell {
        let part = |bits: u64, by: i32| {
            let mask = u32::MAX >> (32 - self.steps);
            spread(gather(bits).wrapping_add_signed(by) & mask)
        };
        // A cell at the very edge has one bit more than its steps; like the others it loses it only when it moves.
        let longitude = if east == 0 { self.bits & EVEN << 1 } else { part(self.bits >> 1, east) << 1 };
        let latitude = if north == 0 { self.bits & EVEN } else { part(self.bits, north) };
        Cell { bits: longitude | latitude, steps: self.steps }
    }

    /// The scores in it.
    pub fn scores(self) -> ScoreRange {
        let shift = 2 * (STEPS - self.steps);
        let edge = |bits: u64| (bits << shift) as f64;
        ScoreRange { min: edge(self.bits), max: edge(self.bits + 1), min_excluded: false, max_excluded: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PALERMO: Place = Place { longitude: 13.361389, latitude: 38.115556 };
    const CATANIA: Place = Place { longitude: 15.087269, latitude: 37.502669 };

    #[test]
    fn known_places() {
        assert_eq!(PALERMO.score(), 3479099956230698);
        assert_eq!(CATANIA.score(), 3479447370796909);
        let (one, other) = (Place::of_score(3479099956230698.0), Place::of_score(3479447370796909.0));
        assert_eq!(format!("{:.17}", one.longitude), "13.36138933897018433");
        assert_eq!(format!("{:.17}", one.latitude), "38.11555639549629859");
        assert_eq!(format!("{:.4}", one.distance(other)), "166274.1516");
        assert_eq!(&one.text(), b"sqc8b49rny0");
        assert_eq!(&other.text(), b"sqdtr74hyu0");
    }

    #[test]
    fn neighbours_lie_around() {
        let cell = Cell::at(PALERMO, 10);
        let (longitudes, latitudes) = cell.spans();
        assert_eq!(
            cell.neighbour(1, 0).spans(),
            (Span { min: longitudes.max, ..cell.neighbour(1, 0).spans().0 }, latitudes)
        );
        assert_eq!(cell.neighbour(0, -1).spans().1.max, latitudes.min);
        assert_eq!(cell.neighbour(-1, 1).neighbour(1, -1), cell);
        let edge = Cell::at(Place { longitude: 179.9, latitude: 85.0 }, 3);
        assert_eq!(edge.neighbour(1, 0).spans().0.min, -180.0);
        assert_eq!(edge.neighbour(0, 1).spans().1.min, LATITUDES.min);
    }

    #[test]
    fn bits_come_back() {
        for (latitude, longitude) in [(0, 0), (1, 2), (u32::MAX, 0), (0x1234_5678, 0x9abc_def0)] {
            let bits = interleave(latitude, longitude);
            assert_eq!((gather(bits), gather(bits >> 1)), (latitude, longitude));
        }
    }

    #[test]
    fn scores_that_are_no_places_are_places_all_the_same() {
        for score in [-1.0, -1e300, 1e300, f64::INFINITY, f64::NEG_INFINITY, 9.3e18, 1.8e19] {
            assert!(Place::of_score(score).is_on_map(), "{score}");
        }
    }
}
