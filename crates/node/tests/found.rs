//! What was found to be wrong, by the simulator or by reading, each as a test of its own.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ardb_base::disk::SimDisk;
use ardb_base::id::{Generation, Offset, ReplId};
use ardb_base::random::Random;
use ardb_commands::{Host, Shared, Table, cmd};
use ardb_engine::Rows;
use ardb_engine::faulty::{Call, Faults, FaultyEngine};
use ardb_engine::{Engine, EngineError};
use ardb_engine_memory::DurableEngine;
use ardb_log::LogOptions;
use ardb_node::failover::{Asked, Candidate, Failover, Look, NotTaken, Refusal, Request, Target, may_take};
use ardb_node::{Node, replay, role};
use ardb_repl::replica::Handing;
use ardb_store::{Fsync, MemoryBudget, Recovery, Store, StoreOptions};

/// Each history gets a name of its own.
static NAMES: AtomicU8 = AtomicU8::new(1);

fn open(disk: &SimDisk) -> Store {
    open_with_faults(disk).0
}

/// With the controls of its engine.
fn open_with_faults(disk: &SimDisk) -> (Store, Arc<Faults>) {
    let (store, faults, _) = open_with_recovery(disk);
    (store, faults)
}

/// And with what was found.
fn open_with_recovery(disk: &SimDisk) -> (Store, Arc<Faults>, Recovery) {
    let of_engine = disk.clone();
    let controls = Arc::new(Mutex::new(None));
    let told = controls.clone();
    let engines = move |_: Generation, dir: &Path, _: u64| -> Result<Arc<dyn Engine>, EngineError> {
        let engine = FaultyEngine::new(Arc::new(DurableEngine::open(Arc::new(of_engine.clone()), dir)?));
        *told.lock().expect("nobody panics") = Some(engine.faults());
        Ok(Arc::new(engine))
    };
    let options = StoreOptions {
        dir: "/data".into(),
        disk: Arc::new(disk.clone()),
        engines: Arc::new(engines),
        databases: 1,
        memory: MemoryBudget { changed: 1 << 20, rows: 1 << 20, engine: 0 },
        log: LogOptions { segment_bytes: 4096, ahead: false },
        backlog_bytes: 1 << 20,
        fsync: Fsync::Always,
        checkpoint_age_ms: 1000,
        boot_id: [1; 16],
        random: Arc::new(|bytes: &mut [u8]| bytes.fill(NAMES.fetch_add(1, Ordering::Relaxed))),
        clock: Arc::new(|| 0),
        background: false,
    };
    let (store, recovery) = Store::open(options).expect("an empty disk takes a store");
    let faults = controls.lock().expect("nobody panics").take().expect("an engine was opened");
    (store, faults, recovery)
}

struct NoHost;

impl Host for NoHost {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn say(store: &Store) -> Offset {
    let mut txn = store.write();
    txn.frame().payload.extend_from_slice(b"PING\r\n");
    txn.commit().expect("there is space")
}

/// Found by the simulator: a commit whose sync had failed was acknowledged all the same, by the next link's position.
#[test]
fn what_could_not_be_synced_is_not_offered_where_commits_are_synced_first() {
    let disk = SimDisk::new();
    let store = open(&disk);
    assert_eq!(role::position(&store, true).expect("nothing to sync"), None, "a fresh server has no history");
    let first = say(&store);
    let position = role::position(&store, true).expect("the disk is well");
    assert_eq!(position, Some((store.history().id, first)));
    assert_eq!(store.synced(), first, "asked for with every commit synced, so it is durable");
    let second = say(&store);
    disk.fail_after(Some(0));
    assert!(role::position(&store, true).is_err());
    let position = role::position(&store, false).expect("nothing is synced here");
    assert_eq!(position, Some((store.history().id, second)));
}

/// A master whose stream must select its database anew forgot that over a crash, if only a PING was logged in between; replicas that had another one
/// selected then executed its next commands there.
#[test]
fn a_database_that_is_not_known_is_not_known_after_a_replay() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let mut txn = store.write();
    txn.frame().db = None;
    txn.commit().expect("nothing to append");
    drop(txn);
    say(&store);
    drop(store);
    disk.kill();
    let store = open(&disk);
    let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
    let node = Node { store: &store, shared: &shared, host: &NoHost };
    replay::replay(node, &mut |_| {}).expect("a PING can be replayed");
    assert_eq!(store.write().frame().db, None);
}

/// Whether the stream is ours was looked at before the snapshot had waited for its turn, and this server may have become a replica meanwhile.
#[test]
fn a_snapshot_asks_under_the_lock_whether_the_stream_is_ours() {
    let disk = SimDisk::new();
    let store = open(&disk);
    say(&store);
    for ours in [false, true] {
        let mut txn = store.write();
        txn.frame().db = Some(0);
        txn.commit().expect("nothing to append");
        drop(txn);
        let alone = std::cell::Cell::new(false);
        let snapshot = store.snapshot_for_replica(|| {
            alone.set(store.write_while(Duration::from_millis(1), || false).is_none());
            ours
        });
        assert!(snapshot.is_ok() && alone.get());
        assert_eq!(store.write().frame().db, (!ours).then_some(0));
    }
}

fn frame(store: &Store, words: &[&str]) -> Offset {
    let mut txn = store.write();
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    txn.frame().payload.extend_from_slice(text.as_bytes());
    txn.commit().expect("there is space")
}

/// A replica of an old master that died between two checkpoints did not start any more: the scripts that the log calls by their names were in memory only.
#[test]
fn a_replica_starts_though_its_log_cannot_be_replayed_to_the_end() {
    let sha = "e".repeat(40);
    for fault in 0.. {
        let disk = SimDisk::new();
        let store = open(&disk);
        let before = store.history().id;
        let good = frame(&store, &["SET", "a", "1"]);
        frame(&store, &["EVALSHA", &sha, "0"]);
        let end = frame(&store, &["SET", "b", "2"]);
        drop(store);
        disk.kill();
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
        let store = open(&disk);
        let start = |store: &Store| {
            let node = Node { store, shared: &shared, host: &NoHost };
            replay::replay_what_can_be(node, &mut |_| {}, &mut |_| {})
        };
        assert!(start(&store).is_err(), "a master must not go on with less than it has confirmed");
        assert_eq!(store.log().end(), end);
        drop(store);
        disk.kill();
        let store = open(&disk);
        role::follow(&store, "somebody 6379").expect("the disk is well");
        disk.fail_after(Some(fault));
        let started = start(&store);
        disk.fail_after(None);
        if let Ok(replayed) = &started {
            assert_eq!(replayed.given_up.as_ref().map(|(at, _)| *at), Some(good));
        }
        drop(store);
        disk.kill();
        // However far it came, the next start comes to the same.
        let store = open(&disk);
        let again = start(&store).expect("the disk is well");
        let done = again.given_up.is_none();
        assert!(done || started.is_err(), "it was durable");
        assert_eq!((store.log().end(), store.upstream()), (good, Some(b"somebody 6379".to_vec())));
        assert_eq!(store.reader().begin().key_count(0), 1, "everything before the script");
        let position = role::position(&store, true).expect("the disk is well");
        assert!(position.is_some_and(|(id, _)| id != before), "no master knows this name");
        assert_eq!(store.history().second, ReplId::NONE);
        // It can be written to if it becomes a master.
        store.fork_history().expect("the disk is well");
        frame(&store, &["SET", "c", "3"]);
        if started.is_ok() {
            assert!(fault > 0, "a fault was met");
            break;
        }
    }
}

/// A script that catches an error which this server alone has met was passed over, and the data differed from then on.
#[test]
fn a_script_that_fails_here_alone_is_not_passed_over() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let script = "redis.call('SET', 'a', '1') redis.pcall('NOSUCH') return 1";
    frame(&store, &["SET", "k", "1"]);
    let at = store.log().end();
    frame(&store, &["EVAL", script, "0"]);
    drop(store);
    disk.kill();
    let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
    let store = open(&disk);
    let node = Node { store: &store, shared: &shared, host: &NoHost };
    let error = replay::replay(node, &mut |_| {}).expect_err("it cannot be executed here");
    assert!(error.to_string().contains("'NOSUCH'") && error.to_string().contains(&at.to_string()), "{error}");
    assert_eq!(store.reader().begin().key_count(0), 1, "nothing of it is committed");
}

/// An engine that cannot be read for a moment must not cost a replica its history, nor stop it for good, be it in a script that catches the error.
#[test]
fn an_engine_that_cannot_be_read_is_tried_again() {
    for command in [&["INCR", "k"][..], &["EVAL", "return redis.pcall('INCR', 'k')", "0"]] {
        let disk = SimDisk::new();
        let store = open(&disk);
        role::follow(&store, "somebody 6379").expect("the disk is well");
        frame(&store, &["SET", "k", "1"]);
        let end = frame(&store, command);
        let id = store.history().id;
        drop(store);
        disk.kill();
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
        let start = |store: &Store| {
            replay::replay_what_can_be(Node { store, shared: &shared, host: &NoHost }, &mut |_| {}, &mut |_| {})
        };
        let store = open(&disk);
        start(&store).expect("the engine is well");
        store.checkpoint().expect("the engine is well");
        let end = end.max(frame(&store, command));
        drop(store);
        disk.kill();
        let (store, faults) = open_with_faults(&disk);
        faults.fail_from(Call::Get, 1);
        start(&store).expect_err("the row cannot be read");
        drop(store);
        disk.kill();
        let store = open(&disk);
        assert_eq!(start(&store).expect("the engine is well").given_up, None);
        assert_eq!((store.log().end(), store.history().id), (end, id));
    }
}

/// A master that died between its promotion and its first write forgot that it had to select its database, which a replica with nothing but the name of the
/// history did not know; what followed was executed in another one there.
#[test]
fn a_promoted_one_says_at_once_which_database_is_selected() {
    let disk = SimDisk::new();
    let store = open(&disk);
    frame(&store, &["SELECT", "1"]);
    role::follow(&store, "somebody 6379").expect("the disk is well");
    let end = store.log().end();
    let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
    let node = Node { store: &store, shared: &shared, host: &NoHost };
    let history = role::promote(node, || {}).expect("the disk is well");
    assert_eq!(history.second_until, end);
    let mut said = Vec::new();
    store.log().reader(end).expect("it is there").read_into(&mut said, usize::MAX).expect("it can be read");
    assert_eq!(
        said, b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n",
        "nothing but the log's bytes told this store of another one"
    );
}

/// An RDB that does not say which database the stream has selected leaves that to the stream; whoever took it for 0 did not select it in a stream of its own.
#[test]
fn what_a_full_sync_does_not_say_is_unknown() {
    for said in [None, Some(0), Some(7)] {
        let disk = SimDisk::new();
        let store = open(&disk);
        let shared = Arc::new(Shared::new(Table::new(cmd::GROUPS), 1, 1));
        let node = Node { store: &store, shared: &shared, host: &NoHost };
        let generation = store.begin_generation().expect("the disk is well");
        let named = Some((ReplId::from_random([9; 20]), Offset(100)));
        let fresh = ReplId::from_random([8; 20]);
        ardb_node::intake::install(node, generation, named, fresh, said, "somebody 6379").expect("the disk is well");
        // There is one database here, so 7 says nothing.
        assert_eq!(store.write().frame().db, said.filter(|db| *db == 0));
        drop(store);
        disk.kill();
        assert_eq!(open(&disk).write().frame().db, said.filter(|db| *db == 0), "a restart knows no more");
    }
}

/// A target that had acknowledged everything and then lost the end of its log with its machine took the role over what was left, and the old master, which had
/// all of it, gave that up to follow.
#[test]
fn a_role_is_not_taken_over_a_history_shorter_than_what_was_handed_over() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let end = say(&store);
    let id = store.history().id;
    let next = end.0 as i64 + 1;
    let other = ReplId::from_random([9; 20]);
    let ask = |id: &ReplId, next: i64, words: &[&[u8]]| {
        may_take(&store, true, Asked::of(id.as_bytes(), next, words).expect("it asks for the role"))
    };
    let complete: &[&[u8]] = &[b"FAILOVER", b"complete"];
    let plain: &[&[u8]] = &[b"failover"];
    assert_eq!(ask(&id, next, complete), Ok(()));
    assert_eq!(ask(&id, next - 1, complete), Ok(()), "the other one has lost something itself");
    assert_eq!(ask(&id, next + 1, complete), Err(NotTaken::Behind { told: end.advance(1), have: end }));
    assert!(ask(&id, i64::MAX, complete).is_err() && ask(&id, i64::MIN, complete).is_ok());
    assert_eq!(ask(&id, next + 1, plain), Ok(()), "by force, or asked by another kind of server");
    assert_eq!(ask(&other, next, plain), Err(NotTaken::OtherHistory));
    let asked = Asked::of(id.as_bytes(), next, complete).expect("it asks for the role");
    assert_eq!(may_take(&store, false, asked), Err(NotTaken::Master));
    assert!(Asked::of(id.as_bytes(), next, &[]).is_none() && Asked::of(id.as_bytes(), next, &[b"complete"]).is_none());
}

/// A master whose FAILOVER had ended because its state could not be written stayed one and took writes; the state could stand in the file all the same, and a start
/// then gave the role away, to a replica that need not have them.
#[test]
fn a_role_that_could_not_be_given_away_is_kept_by_the_next_start() {
    let mut met = false;
    for fault in 0..8 {
        let disk = SimDisk::new();
        let store = open(&disk);
        say(&store);
        disk.fail_after(Some(fault));
        let given = role::hand_over(&store, "heir 6379", true);
        disk.fail_after(None);
        if given.is_ok() {
            assert_eq!(store.handing(), Some(true));
            break;
        }
        role::keep(&store).expect("the disk is well");
        say(&store);
        drop(store);
        disk.kill();
        let store = open(&disk);
        assert_eq!((store.upstream(), store.handing()), (None, None), "operation {fault} failed");
        met = true;
    }
    assert!(met, "a fault was met");
}

/// The decisions of a failover, without anybody to carry them out.
#[test]
fn a_failover_is_complete_only_if_it_is_not_forced_and_the_target_can_check_it() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct At(u8);
    impl Target for At {}
    let candidate = |at: u8, acknowledged: u64, checks: bool| Candidate {
        at: Some(At(at)),
        online: true,
        acknowledged: Offset(acknowledged),
        checks,
    };
    for (checks, how) in [(true, Handing::Complete), (false, Handing::Plain)] {
        let failover = Failover::<At>::default();
        let behind = [candidate(1, 9, checks), candidate(2, 4, checks)];
        failover.begin(Request::default(), || false, &behind, 0, || {}).expect("there is somebody");
        assert_eq!(failover.look(&behind, Offset(10), 1), Look::Rest);
        let Look::Hand(hand) = failover.look(&[candidate(1, 9, checks), candidate(2, 10, checks)], Offset(10), 2)
        else {
            panic!("one of them has everything");
        };
        assert_eq!((hand.target, hand.end, hand.how), (At(2), Some(Offset(10)), how));
        assert_eq!(failover.begin(Request::default(), || false, &behind, 0, || {}), Err(Refusal::Running));
    }
    let failover = Failover::<At>::default();
    let request = Request { target: Some(At(1)), timeout: Some(100), force: true };
    failover.begin(request, || false, &[candidate(1, 9, true)], 0, || {}).expect("there is somebody");
    assert_eq!(failover.look(&[candidate(1, 9, true)], Offset(10), 99), Look::Rest);
    let Look::Hand(hand) = failover.look(&[candidate(1, 9, true)], Offset(10), 100) else { panic!("the time is up") };
    assert_eq!((hand.end, hand.how), (None, Handing::Plain));
}

/// Found by the simulator: the first frame of a log, if it was longer than a segment, took the place of the empty segment that was durable, and was not so itself.
/// A machine that lost power then came back without a log.
#[test]
fn a_first_frame_longer_than_a_segment_leaves_a_log_over_a_power_failure() {
    for seed in 0..200 {
        let disk = SimDisk::new();
        let store = open(&disk);
        frame(&store, &["SET", "long", &"x".repeat(6000)]);
        drop(store);
        disk.power_loss(&mut Random::new(seed));
        let (store, _, recovery) = open_with_recovery(&disk);
        assert!(!recovery.engine_ahead, "seed {seed}");
        assert_eq!(store.log().start(), Offset(0));
    }
}
