//! Places on the globe: GEOADD, GEOPOS, GEODIST, GEOHASH; the searches are in [`search`].
//!
//! The values are sorted sets whose scores stand for places, see `hash.rs`. Logged are ZADD for GEOADD, and DEL and ZADD for what a search
//! stores, which Redis 2.6 knows.

mod hash;
mod order;
pub mod search;
mod shape;
#[cfg(test)]
mod tests;

use ardb_base::number::i64_text;
use ardb_types::zset::ZSet;

use self::hash::Place;
use super::args;
use super::zset::{open, write};
use crate::context::Ctx;
use crate::error::{self, CmdError};
use crate::table::{Command, Flags, Group, Handler, Keys};
use crate::{CmdResult, Outcome};

const fn row(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: Handler) -> Command {
    Command::new(name, arity, flags, keys, Group::Geo, handler)
}

/// The place that two arguments are.
fn parse_place(longitude: &[u8], latitude: &[u8]) -> Result<Place, CmdError> {
    let place = Place { longitude: args::float(longitude)?, latitude: args::float(latitude)? };
    if !place.is_on_map() {
        return Err(CmdError::text(format!(
            "ERR invalid longitude,latitude pair {:.6},{:.6}",
            place.longitude, place.latitude
        )));
    }
    Ok(place)
}

/// Meters in the unit that an argument names.
fn parse_unit(arg: &[u8]) -> Result<f64, CmdError> {
    [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)]
        .into_iter()
        .find(|(name, _)| args::is(arg, name))
        .map(|(_, meters)| meters)
        .ok_or(CmdError::text("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// The place of a member, if it is there.
fn place_of(ctx: &Ctx<'_>, set: &ZSet, member: &[u8]) -> Result<Option<Place>, CmdError> {
    Ok(set.score(&ctx.rows, member)?.map(Place::of_score))
}

/// Replies a distance with four digits after the point.
fn reply_distance(ctx: &mut Ctx<'_>, distance: f64) {
    // Not negative, and at most half the way around the earth.
    let digits = (distance * 10_000.0).round_ties_even() as u64;
    ctx.out.bulk(format!("{}.{:04}", digits / 10_000, digits % 10_000).as_bytes());
}

/// Replies a coordinate with all its digits up to the seventeenth after the point.
fn reply_coordinate(ctx: &mut Ctx<'_>, coordinate: f64) {
    let text = format!("{coordinate:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    ctx.out.double_text(if text == "-0" { b"0" } else { text.as_bytes() });
}

fn reply_place(ctx: &mut Ctx<'_>, place: Place) {
    ctx.out.array(2);
    reply_coordinate(ctx, place.longitude);
    reply_coordinate(ctx, place.latitude);
}

/// GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]
fn geoadd(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let option = |arg: &&&[u8]| ["nx", "xx", "ch"].iter().any(|word| args::is(arg, word));
    let options = args[2..].iter().take_while(option).count();
    let (options, places) = args[2..].split_at(options);
    let has = |word| options.iter().any(|option| args::is(option, word));
    if !places.len().is_multiple_of(3) || (has("nx") && has("xx")) {
        return Err(error::SYNTAX);
    }
    let scored = places
        .chunks_exact(3)
        .map(|place| {
            // A score has at most 54 bits.
            let score = parse_place(place[0], place[1])?.score() as i64;
            Ok((i64_text(score), place[2]))
        })
        .collect::<Result<Vec<_>, CmdError>>()?;
    let mut zadd: Vec<&[u8]> = vec![b"ZADD", args[1]];
    zadd.extend(options);
    for (score, member) in &scored {
        zadd.extend([&score[..], member]);
    }
    let dirty = ctx.dirty;
    let outcome = write::zadd(ctx, &zadd)?;
    if ctx.dirty > dirty && !ctx.effects.explicit {
        ctx.effect(&zadd);
    }
    Ok(outcome)
}

/// Replies for each of the members what `reply` makes of its place, or `absent`.
fn for_members(
    ctx: &mut Ctx<'_>,
    args: &[&[u8]],
    reply: impl Fn(&mut Ctx<'_>, Place),
    absent: impl Fn(&mut Ctx<'_>),
) -> CmdResult {
    let set = open(ctx, args[1])?;
    ctx.out.array(args.len() - 2);
    for member in &args[2..] {
        let place = match &set {
            Some(set) => place_of(ctx, set, member)?,
            None => None,
        };
        match place {
            Some(place) => reply(ctx, place),
            None => absent(ctx),
        }
    }
    Ok(Outcome::Done)
}

/// GEOPOS key [member ...]
fn geopos(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    for_members(ctx, args, reply_place, |ctx| ctx.out.null_array())
}

/// GEOHASH key [member ...]
fn geohash(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    for_members(ctx, args, |ctx, place| ctx.out.bulk(&place.text()), |ctx| ctx.out.null())
}

/// GEODIST key member member [M | KM | FT | MI]
fn geodist(ctx: &mut Ctx<'_>, args: &[&[u8]]) -> CmdResult {
    let unit = match args[4..] {
        [] => 1.0,
        [unit] => parse_unit(unit)?,
        _ => return Err(error::SYNTAX),
    };
    let places = match open(ctx, args[1])? {
        Some(set) => place_of(ctx, &set, args[2])?.zip(place_of(ctx, &set, args[3])?),
        None => None,
    };
    match places {
        Some((from, to)) => reply_distance(ctx, from.distance(to) / unit),
        None => ctx.out.null(),
    }
    Ok(Outcome::Done)
}

/// The rows of this group, but for the searches.
pub const COMMANDS: &[Command] = &[
    row("geoadd", -5, Flags::WRITE.with(Flags::DENYOOM), Keys::ONE, geoadd)
        .doc("3.2.0", "Add places to a sorted set, or move them"),
    row("geodist", -4, Flags::READONLY, Keys::ONE, geodist).doc("3.2.0", "The distance between two places"),
    row("geohash", -2, Flags::READONLY, Keys::ONE, geohash).doc("3.2.0", "Places as geohash texts"),
    row("geopos", -2, Flags::READONLY, Keys::ONE, geopos).doc("3.2.0", "The longitudes and latitudes of places"),
];
