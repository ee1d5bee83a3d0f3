//! Which places lie in an area: GEOSEARCH, GEOSEARCHSTORE, and the older GEORADIUS and its kin.

use std::ops::ControlFlow;

use ardb_base::number;
use ardb_types::zset::{Span, ZSet};

use super::super::args;
use super::super::zset::{open, store};
use super::hash::Place;
use super::order::sort_first;
use super::shape::{Form, Shape, centroid};
use super::{parse_place, parse_unit, place_of, reply_distance, reply_place, row};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Keys};
use crate::{CmdResult, Outcome};

/// The commands, by what they accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// GEORADIUS: a place and a radius come first.
    Radius,
    /// GEORADIUSBYMEMBER: a member and a radius come first.
    RadiusByMember,
    /// GEOSEARCH.
    Search,
    /// GEOSEARCHSTORE.
    SearchStore,
}

/// How the result is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As it was found.
    Found,
    /// The nearest first.
    Nearest,
    /// The farthest first.
    Farthest,
}

/// What the area lies around.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Center {
    Unsaid,
    At(Place),
    /// A member's place; none, if there is no set.
    OfMember(Option<Place>),
}

/// What is asked for.
struct Request<'a> {
    center: Center,
    /// The form, and meters in its unit.
    area: Option<(Form, f64)>,
    with_distance: bool,
    with_hash: bool,
    with_place: bool,
    count: Option<usize>,
    any: bool,
    order: Order,
    /// Where the result goes, and whether with distances as its scores.
    store: Option<(&'a [u8], bool)>,
}

fn distance_arg(arg: &[u8], error: &'static str) -> Result<f64, CmdError> {
    number::parse_f64(arg).ok_or(CmdError::text(error))
}

/// The circle that a radius and a unit are, and the unit.
fn parse_circle(radius: &[u8], unit: &[u8]) -> Result<(Form, f64), CmdError> {
    let radius = distance_arg(radius, "ERR need numeric radius")?;
    if radius < 0.0 {
        return Err(CmdError::text("ERR radius cannot be negative"));
    }
    Ok((Form::Circle(radius), parse_unit(unit)?))
}

/// The box that a width, a height and a unit are, and the unit.
fn parse_box(width: &[u8], height: &[u8], unit: &[u8]) -> Result<(Form, f64), CmdError> {
    let width = distance_arg(width, "ERR need numeric width")?;
    let height = distance_arg(height, "ERR need numeric height")?;
    if width < 0.0 || height < 0.0 {
        return Err(CmdError::text("ERR height or width cannot be negative"));
    }
    Ok((Form::Box { width, height }, parse_unit(unit)?))
}

/// The corners after their number, and how many arguments they are.
fn parse_polygon(number: &[u8], rest: &[&[u8]]) -> Result<(Vec<Place>, usize), CmdError> {
    let number = args::int(number).ok().and_then(|number| i32::try_from(number).ok());
    let number = number.ok_or(CmdError::text("ERR invalid number of vertices"))?;
    let corners = usize::try_from(number).ok().filter(|number| *number >= 3);
    let corners = corners.and_then(|number| rest.get(..2 * number));
    let corners = corners.ok_or(CmdError::text("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices"))?;
    let places = corners.chunks_exact(2).map(|corner| parse_place(corner[0], corner[1]));
    Ok((places.collect::<Result<_, _>>()?, corners.len()))
}

/// What decides how options are read.
struct Source<'c, 'x> {
    ctx: &'c Ctx<'x>,
    set: Option<&'c ZSet>,
    family: Family,
    /// Whether STORE and STOREDIST may be given.
    may_store: bool,
}

impl Source<'_, '_> {
    /// The place of a member, which must be there if the set is.
    fn center(&self, member: &[u8]) -> Result<Center, CmdError> {
        let place = match self.set {
            Some(set) => Some(
                place_of(self.ctx, set, member)?.ok_or(CmdError::text("ERR could not decode requested zset member"))?,
            ),
            None => None,
        };
        Ok(Center::OfMember(place))
    }
}

impl<'a> Request<'a> {
    fn parse(source: &Source<'_, '_>, args: &[&'a [u8]]) -> Result<Request<'a>, CmdError> {
        let mut request = Request {
            center: Center::Unsaid,
            area: None,
            with_distance: false,
            with_hash: false,
            with_place: false,
            count: None,
            any: false,
            order: Order::Found,
            store: None,
        };
        let mut rest = match source.family {
            Family::Radius => {
                request.center = Center::At(parse_place(args[2], args[3])?);
                request.area = Some(parse_circle(args[4], args[5])?);
                &args[6..]
            }
            Family::RadiusByMember => {
                request.center = source.center(args[2])?;
                // Without a set the radius is not looked at.
                if source.set.is_some() {
                    request.area = Some(parse_circle(args[3], args[4])?);
                }
                &args[5..]
            }
            Family::Search => &args[2..],
            Family::SearchStore => {
                request.store = Some((args[1], false));
                &args[3..]
            }
        };
        while let [option, after @ ..] = rest {
            rest = request.option(source, option, after)?;
        }
        request.check(source.family, args[0])?;
        Ok(request)
    }

    /// Takes one option in; what stands after it and its arguments.
    fn option<'s>(
        &mut self,
        source: &Source<'_, '_>,
        option: &[u8],
        after: &'s [&'a [u8]],
    ) -> Result<&'s [&'a [u8]], CmdError> {
        let is = |word| args::is(option, word);
        let searches = matches!(source.family, Family::Search | Family::SearchStore);
        let rest = match *after {
            _ if is("withdist") => {
                self.with_distance = true;
                after
            }
            _ if is("withhash") => {
                self.with_hash = true;
                after
            }
            _ if is("withcoord") => {
                self.with_place = true;
                after
            }
            _ if is("any") => {
                self.any = true;
                after
            }
            _ if is("asc") => {
                self.order = Order::Nearest;
                after
            }
            _ if is("desc") => {
                self.order = Order::Farthest;
                after
            }
            [count, ref rest @ ..] if is("count") => {
                let count = args::int(count)?;
                if count <= 0 {
                    return Err(CmdError::text("ERR COUNT must be > 0"));
                }
                self.count = Some(usize::try_from(count).unwrap_or(usize::MAX));
                rest
            }
            [key, ref rest @ ..] if is("store") && source.may_store => {
                self.store = Some((key, false));
                rest
            }
            [key, ref rest @ ..] if is("storedist") && source.may_store => {
                self.store = Some((key, true));
                rest
            }
            _ if is("storedist") && source.family == Family::SearchStore => {
                self.store = self.store.map(|(key, _)| (key, true));
                after
            }
            [number, ref rest @ ..] if searches && is("bypolygon") && !rest.is_empty() && self.may_be_polygon() => {
                let (corners, count) = parse_polygon(number, rest)?;
                self.center = Center::At(centroid(&corners));
                self.area = Some((Form::Polygon(corners), 1.0));
                &rest[count..]
            }
            _ if self.is_polygon() => return Err(error::SYNTAX),
            [member, ref rest @ ..] if searches && is("frommember") && !matches!(self.center, Center::At(_)) => {
                self.center = source.center(member)?;
                rest
            }
            [longitude, latitude, ref rest @ ..]
                if searches && is("fromlonlat") && !matches!(self.center, Center::OfMember(_)) =>
            {
                self.center = Center::At(parse_place(longitude, latitude)?);
                rest
            }
            [radius, unit, ref rest @ ..]
                if searches && is("byradius") && !matches!(self.area, Some((Form::Box { .. }, _))) =>
            {
                self.area = Some(parse_circle(radius, unit)?);
                rest
            }
            [width, height, unit, ref rest @ ..]
                if searches && is("bybox") && !matches!(self.area, Some((Form::Circle(_), _))) =>
            {
                self.area = Some(parse_box(width, height, unit)?);
                rest
            }
            _ => return Err(error::SYNTAX),
        };
        Ok(rest)
    }

    fn is_polygon(&self) -> bool {
        matches!(self.area, Some((Form::Polygon(_), _)))
    }

    /// Whether neither another form nor a middle was said.
    fn may_be_polygon(&self) -> bool {
        self.is_polygon() || (self.area.is_none() && self.center == Center::Unsaid)
    }

    /// Refuses what does not go together.
    fn check(&self, family: Family, name: &[u8]) -> Result<(), CmdError> {
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_place) {
            let what = if family == Family::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CmdError::text(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if matches!(family, Family::Search | Family::SearchStore) {
            let missing =
                |what: &str| Err(CmdError::Bytes([what.as_bytes(), b" can be specified for ", name].concat()));
            if self.center == Center::Unsaid {
                return missing("ERR exactly one of FROMMEMBER or FROMLONLAT");
            }
            if self.area.is_none() {
                return missing("ERR exactly one of BYRADIUS and BYBOX");
            }
        }
        if self.any && self.count.is_none() {
            return Err(CmdError::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// The area, if there is a set to search.
    fn shape(&mut self) -> Option<Shape> {
        let (Center::At(center) | Center::OfMember(Some(center))) = self.center else { return None };
        let (form, unit) = self.area.take()?;
        Some(Shape { center, form, unit })
    }
}

/// A member in the area.
struct Hit {
    member: Vec<u8>,
    score: f64,
    place: Place,
    /// From the middle, in meters.
    distance: f64,
}

/// The members in the area, as they are found, at most `limit`.
fn find(ctx: &Ctx<'_>, set: &ZSet, shape: &Shape, limit: usize) -> Result<Vec<Hit>, CmdError> {
    let mut hits = Vec::new();
    for cell in shape.cells() {
        if hits.len() >= limit {
            break;
        }
        set.by_span(&ctx.rows, &Span::scores(&cell.scores()), false, 0, None, &mut |member, score| {
            let place = Place::of_score(score);
            if let Some(distance) = shape.distance_within(place) {
                hits.push(Hit { member: member.to_vec(), score, place, distance });
            }
            if hits.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    Ok(hits)
}

/// Orders the members and drops those beyond the count.
fn choose(hits: &mut Vec<Hit>, request: &Request<'_>) {
    // The nearest few are wanted, unless any will do.
    let order = match request.order {
        Order::Found if request.count.is_some() && !request.any => Order::Nearest,
        order => order,
    };
    let count = request.count.unwrap_or(usize::MAX);
    // Distances that are no number count as equal to all.
    let nearer = |a: &Hit, b: &Hit| a.distance.partial_cmp(&b.distance).unwrap_or(std::cmp::Ordering::Equal);
    let all = hits.len() <= count;
    match order {
        Order::Found => {}
        Order::Nearest if all => hits.sort_by(nearer),
        Order::Farthest if all => hits.sort_by(|a, b| nearer(b, a)),
        Order::Nearest => sort_first(hits, count, &nearer),
        Order::Farthest => sort_first(hits, count, &|a, b| nearer(b, a)),
    }
    hits.truncate(count);
}

/// A score as an integer: what is too great becomes the least one, as in C on the machines that Redis runs on.
fn hash_of(score: f64) -> i64 {
    if score < i64::MAX as f64 { score as i64 } else { i64::MIN }
}

fn reply(ctx: &mut Ctx<'_>, hits: &[Hit], request: &Request<'_>, unit: f64) {
    let parts = [request.with_distance, request.with_hash, request.with_place].into_iter().filter(|part| *part).count();
    ctx.out.array(hits.len());
    for hit in hits {
        if parts > 0 {
            ctx.out.array(1 + parts);
        }
        ctx.out.bulk(&hit.member);
        if request.with_distance {
            reply_distance(ctx, hit.distance / unit);
        }
        if request.with_hash {
            ctx.out.int(hash_of(hit.score));
        }
        if request.with_place {
            reply_place(ctx, hit.place);
        }
    }
}

fn run(ctx: &mut Ctx<'_>, args: &[&[u8]], family: Family, may_store: bool) -> CmdResult {
    let key = args[if family == Family::SearchStore { 2 } else { 1 }];
    let set = open(ctx, key)?;
    let mut request = Request::parse(&Source { ctx, set: set.as_ref(), family, may_store }, args)?;
    let mut hits = Vec::new();
    let mut unit = 1.0;
    if let (Some(set), Some(shape)) = (&set, request.shape()) {
        let limit = request.count.filter(|_| request.any).unwrap_or(usize::MAX);
        hits = find(ctx, set, &shape, limit)?;
        choose(&mut hits, &request);
        unit = shape.unit;
    }
    let Some((target, by_distance)) = request.store else {
        reply(ctx, &hits, &request, unit);
        return Ok(Outcome::Done);
    };
    let members: Vec<_> =
        hits.into_iter().map(|hit| (hit.member, if by_distance { hit.distance / unit } else { hit.score })).collect();
    let event = if family == Family::SearchStore { "geosearchstore" } else { "georadiusstore" };
    store(ctx, target, &members, event, true)?;
    Ok(Outcome::Done)
}

/// GEOSEARCH key FROMMEMBER member | FROMLONLAT longitude latitude BYRADIUS radius unit | BYBOX width height unit,
/// or BYPOLYGON n longitude latitude [longitude latitude ...]; [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]
fn geosearch(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run(ctx, args, Family::Search, false)
}

/// GEOSEARCHSTORE destination source, as GEOSEARCH, [STOREDIST]
fn geosearchstore(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run(ctx, args, Family::SearchStore, false)
}

/// GEORADIUS key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]
fn georadius(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run(ctx, args, Family::Radius, true)
}

/// GEORADIUS_RO: GEORADIUS without STORE
fn georadius_ro(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run(ctx, args, Family::Radius, false)
}

/// GEORADIUSBYMEMBER key member radius unit, options as GEORADIUS
fn georadiusbymember(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run(ctx, args, Family::RadiusByMember, true)
}

/// GEORADIUSBYMEMBER_RO: GEORADIUSBYMEMBER without STORE
fn georadiusbymember_ro(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    run(ctx, args, Family::RadiusByMember, false)
}

/// The key that is searched, and what follows STORE and STOREDIST among the options, which begin at `from`.
fn stored_keys(args: &[&[u8]], from: usize) -> Vec<usize> {
    let after = |word: &str| {
        let options = args.iter().enumerate().skip(from);
        options.map(|(at, arg)| (at + 1, args::is(arg, word))).find(|(_, found)| *found).map(|(at, _)| at)
    };
    [Some(1), after("store"), after("storedist")].into_iter().flatten().collect()
}

fn radius_keys(args: &[&[u8]]) -> Vec<usize> {
    stored_keys(args, 6)
}

fn radius_by_member_keys(args: &[&[u8]]) -> Vec<usize> {
    stored_keys(args, 5)
}

const STORES: Flags = Flags::WRITE.with(Flags::DENYOOM);

/// The rows of the searches.
pub const COMMANDS: &[Command] = &[
    row("georadius", -6, STORES.with(Flags::MOVABLEKEYS), Keys::Custom(radius_keys), georadius)
        .doc("3.2.0", "Places within a distance, and perhaps store them"),
    row("georadius_ro", -6, Flags::READONLY, Keys::ONE, georadius_ro).doc("3.2.10", "Places within a distance"),
    row(
        "georadiusbymember",
        -5,
        STORES.with(Flags::MOVABLEKEYS),
        Keys::Custom(radius_by_member_keys),
        georadiusbymember,
    )
    .doc("3.2.0", "Places within a distance of a member, and perhaps store them"),
    row("georadiusbymember_ro", -5, Flags::READONLY, Keys::ONE, georadiusbymember_ro)
        .doc("3.2.10", "Places within a distance of a member"),
    row("geosearch", -7, Flags::READONLY, Keys::ONE, geosearch)
        .doc("6.2.0", "Places within a circle, a box or a polygon"),
    row("geosearchstore", -8, STORES, Keys::TWO, geosearchstore)
        .doc("6.2.0", "Store the places within a circle, a box or a polygon"),
];
