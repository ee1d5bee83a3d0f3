//! Tests of scripts against the harness: replies and logged effects.

use crate::context::Fault;
use crate::dispatch;
use crate::testing::Harness;

fn eval(server: &mut Harness, script: &str) -> String {
    server.run_args(&[b"EVAL", script.as_bytes(), b"0"])
}

#[test]
fn values_become_replies_and_back() {
    let mut server = Harness::new();
    for (script, reply) in [
        ("return 'hello'", "$5 hello"),
        ("return 100.5", ":100"),
        ("return true", ":1"),
        ("return false", "$-1"),
        ("return nil", "$-1"),
        ("return {ok='fine'}", "+fine"),
        ("return {err='ERR bad'}", "-ERR bad"),
        ("return {1,2,nil,4}", "*2 :1 :2"),
        ("return {1.9,-1.9,1e300,0/0}", "*4 :1 :-1 :-9223372036854775808 :-9223372036854775808"),
        ("return {double=3.25}", "$4 3.25"),
        ("return {map={a=1}}", "*2 $1 a :1"),
        ("return {set={a=true}}", "*1 $1 a"),
        ("return {big_number='123'}", "$3 123"),
        ("return {verbatim_string={format='txt',string='hello'}}", "$5 hello"),
        ("return redis.error_reply('x')", "-ERR x"),
        ("return redis.error_reply('-MY x')", "-MY x"),
        ("return redis.error_reply(1)", "-ERR wrong number or type of arguments"),
        ("return redis.status_reply('x y')", "+x y"),
        ("return redis.sha1hex('')", "$40 da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("return _G", "*0"),
        ("return function() end", "$-1"),
        ("return redis.REDIS_VERSION_NUM", ":458767"),
    ] {
        assert_eq!(eval(&mut server, script), reply, "{script}");
    }
    assert_eq!(
        server.run_args(&[b"EVAL", b"return {KEYS[1],ARGV[1],#KEYS,#ARGV}", b"1", b"k", b"a", b"b"]),
        "*4 $1 k $1 a :1 :2"
    );
}

#[test]
fn errors_have_the_texts_of_redis() {
    let mut server = Harness::new();
    server.run("SET s v");
    for (script, text) in [
        ("error('x')", "ERR user_script:1: x"),
        ("error({err='MY x'})", "MY x"),
        ("error({code=1})", "ERR unknown error"),
        ("local t=nil; t.x=1", "ERR user_script:1: attempt to index local 't' (a nil value)"),
        ("return redis.call('lpush','s','a')", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("redis.call('nosuch')", "ERR Unknown Redis command called from script"),
        ("redis.call('get')", "ERR Wrong number of args calling Redis command from script"),
        ("redis.call()", "ERR Please specify at least one argument for this redis lib call"),
        ("redis.call({})", "ERR Lua redis lib command arguments must be strings or integers"),
        ("redis.call('eval','return 1',0)", "ERR This Redis command is not allowed from script"),
        ("redis.call('multi')", "ERR This Redis command is not allowed from script"),
        ("return a", "ERR user_script:1: Script attempted to access nonexistent global variable 'a'"),
        ("print('x')", "ERR user_script:1: Script attempted to access nonexistent global variable 'print'"),
        ("redis.log(1)", "ERR redis.log() requires two arguments or more."),
        ("redis.log('x','y')", "ERR First argument must be a number (log level)."),
        ("redis.log(10,'y')", "ERR Invalid debug level."),
        ("redis.setresp(4)", "ERR RESP version must be 2 or 3."),
        ("redis.setresp()", "ERR redis.setresp() requires one argument."),
        ("redis.sha1hex()", "ERR wrong number of arguments"),
        ("redis.set_repl(9)", "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."),
        ("string.rep()", "ERR user_script:1: bad argument #1 to 'rep' (string expected, got no value)"),
        ("local function f() return f() + 1 end return f()", "ERR user_script:1: stack overflow"),
        ("return redis.acl_check_cmd('nosuch')", "ERR Invalid command passed to redis.acl_check_cmd()"),
    ] {
        let sha = String::from_utf8(super::sha1_hex(script.as_bytes()).to_vec()).unwrap();
        assert_eq!(eval(&mut server, script), format!("-{text} script: {sha}, on @user_script:1."), "{script}");
    }
    let unplaced = [
        ("return 1 +", "-ERR Error compiling script (new function): user_script:1: unexpected symbol near '<eof>'"),
        ("return redis.pcall('lpush','s','a')", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("return redis.pcall({})", "-ERR Lua redis lib command arguments must be strings or integers"),
        ("local ok, text = pcall(redis.call, 'lpush', 's', 'a') return text", "$65 WRONGTYPE Operation"),
        ("local ok, text = pcall(error, 'x') return text", "$1 x"),
        ("local ok, text = pcall(redis.sha1hex) return text", "$29 ERR wrong number of arguments"),
    ];
    for (script, reply) in unplaced {
        assert!(eval(&mut server, script).starts_with(reply), "{script}: {}", eval(&mut server, script));
    }
    let line_3 = eval(&mut server, "#!lua\n\nerror('x')");
    assert!(line_3.starts_with("-ERR user_script:3: x script: ") && line_3.ends_with("on @user_script:3."), "{line_3}");
    assert_eq!(server.run_args(&[b"EVAL", b"return 1", b"a"]), "-ERR value is not an integer or out of range");
    assert_eq!(
        server.run_args(&[b"EVAL", b"return 1", b"2", b"a"]),
        "-ERR Number of keys can't be greater than number of args"
    );
    assert_eq!(server.run_args(&[b"EVAL", b"return 1", b"-1"]), "-ERR Number of keys can't be negative");
}

#[test]
fn what_scripts_share_cannot_be_changed() {
    let mut server = Harness::new();
    for script in [
        "a=10",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index = {}",
        "redis = 1",
        "_G = {}",
        "redis.call = 1",
        "string.rep = 1",
        "getmetatable('').__index = nil",
        "getmetatable('').__index.rep = 1",
        "rawset(_G, 'x', 1)",
        "rawset(redis, 'x', 1)",
        "table.insert(redis, 1)",
        "local n, t = pairs(redis) t.call = 1",
        "KEYS = {}",
        "math.random = nil",
    ] {
        let reply = eval(&mut server, script);
        assert!(
            reply.starts_with("-ERR ") && reply.contains("Attempt to modify a readonly table"),
            "{script}: {reply}"
        );
    }
    assert_eq!(eval(&mut server, "return ('x'):rep(3)"), "$3 xxx");
    assert_eq!(eval(&mut server, "return rawget(_G, 'nothing')"), "$-1");
    assert_eq!(eval(&mut server, "local n = 0 for k in pairs(redis) do n = n + 1 end return n > 15"), ":1");
    assert_eq!(eval(&mut server, "return type(next(_G))"), "$6 string");
    assert_eq!(eval(&mut server, "return tostring(_G == _G._G)"), "$4 true");
}

#[test]
fn source_text_only_is_loaded() {
    let mut server = Harness::new();
    for script in
        ["loadstring(string.dump(function() end))()", "load(function() return string.dump(function() end) end)()"]
    {
        let reply = eval(&mut server, script);
        assert!(reply.contains("attempt to call a nil value"), "{reply}");
    }
    assert_eq!(eval(&mut server, "return loadstring('return 1+1')()"), ":2");
    assert_eq!(
        eval(&mut server, "local n = 0 return load(function() n = n + 1 return ({'return ', '7'})[n] end)()"),
        ":7"
    );
    assert!(eval(&mut server, "return loadstring('return foo')()").contains("nonexistent global variable 'foo'"));
}

#[test]
fn the_effects_are_logged_and_never_the_script() {
    let mut server = Harness::new();
    assert_eq!(eval(&mut server, "return redis.call('SET','a',1)"), "+OK");
    assert_eq!(server.take_log(), "SET a 1");
    eval(&mut server, "redis.call('SADD','s','x') redis.call('GET','a') redis.call('RPUSH','l',0.1,1e20)");
    assert_eq!(server.take_log(), "MULTI | SADD s x | RPUSH l 0.10000000000000001 1e+20 | EXEC");
    let reply = eval(&mut server, "redis.call('RPUSH','l','kept') redis.call('incr','l')");
    assert!(reply.starts_with("-WRONGTYPE"), "{reply}");
    assert_eq!(server.take_log(), "RPUSH l kept");
    server.run("MULTI");
    server.run_args(&[b"EVAL", b"redis.call('SADD','s','z')", b"0"]);
    server.run("SADD t u");
    server.run("EXEC");
    assert_eq!(server.take_log(), "MULTI | SADD s z | SADD t u | EXEC");
    server.origin = crate::Origin::Stream;
    eval(&mut server, "redis.call('sadd','s','from the master')");
    assert_eq!(server.take_log(), "");
    assert_eq!(server.run_args(&[b"SISMEMBER", b"s", b"from the master"]), ":1");
}

#[test]
fn read_only_scripts_and_replicas_refuse_writes() {
    use std::sync::atomic::Ordering;
    let mut server = Harness::new();
    let refused = "-ERR Write commands are not allowed from read-only scripts. script: ";
    for name in ["SADD", "PUBLISH"] {
        let script = format!("return redis.call('{name}','a','b')");
        assert!(server.run_args(&[b"EVAL_RO", script.as_bytes(), b"0"]).starts_with(refused));
    }
    assert!(eval(&mut server, "#!lua flags=no-writes\nredis.call('SADD','a','b')").starts_with(refused));
    assert_eq!(
        server.run_args(&[b"EVAL_RO", b"#!lua\nreturn 1", b"0"]),
        "-ERR Can not execute a script with write flag using *_ro command."
    );
    assert_eq!(server.run_args(&[b"EVAL_RO", b"return redis.call('GET','a')", b"0"]), "$-1");
    server.shared.gates.read_only.store(true, Ordering::Relaxed);
    assert!(
        eval(&mut server, "redis.call('SADD','a','b')")
            .starts_with("-READONLY You can't write against a read only replica. script: ")
    );
    assert_eq!(eval(&mut server, "#!lua\nreturn 1"), "-READONLY You can't write against a read only replica.");
    assert_eq!(eval(&mut server, "return 1"), ":1");
    server.shared.gates.read_only.store(false, Ordering::Relaxed);
    server.shared.gates.stale.store(true, Ordering::Relaxed);
    assert!(eval(&mut server, "return 1").starts_with("-MASTERDOWN"));
    assert_eq!(eval(&mut server, "#!lua flags=allow-stale\nreturn 1"), ":1");
    assert!(
        eval(&mut server, "#!lua flags=allow-stale\nreturn redis.call('get','a')")
            .contains("Can not execute the command on a stale replica")
    );
    assert_eq!(server.take_log(), "");
}

#[test]
fn scripts_are_known_by_their_sha1() {
    let mut server = Harness::new();
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"; // of `return 1`
    assert!(server.run(&format!("EVALSHA {sha} 0")).starts_with("-NOSCRIPT"));
    assert_eq!(server.run_args(&[b"SCRIPT", b"LOAD", b"return 1"]), format!("$40 {sha}"));
    assert_eq!(server.run(&format!("EVALSHA {sha} 0")), ":1");
    assert_eq!(server.run(&format!("EVALSHA {} 0", sha.to_uppercase())), ":1");
    assert_eq!(server.run(&format!("EVALSHA_RO {sha} 0")), ":1");
    assert_eq!(server.run(&format!("SCRIPT EXISTS {sha} x")), "*2 :1 :0");
    assert_eq!(server.shared.scripts.count(), 1);
    assert_eq!(server.run("SCRIPT FLUSH foo"), "-ERR SCRIPT FLUSH only support SYNC|ASYNC option");
    assert_eq!(server.run("SCRIPT FLUSH ASYNC"), "+OK");
    assert!(server.run(&format!("EVALSHA {sha} 0")).starts_with("-NOSCRIPT"));
    assert_eq!(server.run("SCRIPT KILL"), "-NOTBUSY No scripts in execution right now.");
    assert_eq!(server.run("SCRIPT DEBUG NO"), "+OK");
    assert!(server.run("SCRIPT DEBUG YES").starts_with("-ERR"));
    assert!(server.run("SCRIPT LOAD +").starts_with("-ERR Error compiling script (new function): user_script:1: "));
}

#[test]
fn a_script_that_is_killed_cannot_go_on() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    static NOW: AtomicU64 = AtomicU64::new(0);
    let mut server = Harness::new();
    Arc::get_mut(&mut server.shared).expect("nobody else holds it").clock = || NOW.fetch_add(100, Ordering::Relaxed);
    server.shared.settings.script_limit.store(1000, Ordering::Relaxed);
    for script in [
        "while true do end",
        "local f = function() while true do end end while true do pcall(f) end",
        "local f = function() while true do redis.call('ping') end end while true do pcall(f) end",
        "while true do coroutine.wrap(function() while true do pcall(redis.call, 'get', 'a') end end)() end",
        "while true do local c = coroutine.create(function() while true do end end) coroutine.resume(c) end",
    ] {
        let shared = server.shared.clone();
        let killer = std::thread::spawn(move || {
            while !shared.gates.busy_script.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            assert!(shared.scripts.is_running());
            shared.gates.kill_script.store(true, Ordering::SeqCst);
        });
        let reply = eval(&mut server, script);
        killer.join().unwrap();
        assert!(reply.starts_with("-ERR Script killed by user with SCRIPT KILL."), "{script}: {reply}");
        assert!(!server.shared.gates.busy_script.load(Ordering::SeqCst));
        assert_eq!(eval(&mut server, "local n = 0 for i = 1, 1000 do n = n + i end return n"), ":500500");
    }
}

#[test]
fn memory_and_recursion_have_bounds() {
    let mut server = Harness::new();
    let reply = eval(&mut server, "local s = 'x' while true do s = s .. s end");
    assert!(reply.contains("not enough memory"), "{reply}");
    let reply = eval(&mut server, "local t = {} t[1] = t return t");
    assert!(reply.starts_with("*1 *1 *1") && reply.ends_with("-ERR reached lua stack limit"));
    assert_eq!(
        eval(&mut server, "local t = {} for i = 1, 7999 do t[i] = i end return redis.call('rpush', 'l', unpack(t))"),
        ":7999"
    );
    let texts = "local t = {} for i = 1, 7990 do t[i] = 'x' .. i end return redis.call('rpush', 'l', unpack(t))";
    assert_eq!(eval(&mut server, texts), ":15989");
    assert_eq!(eval(&mut server, "return #redis.call('lrange', 'l', 0, -1)"), ":15989");
}

#[test]
fn resp3_reaches_scripts_that_ask_for_it() {
    let mut server = Harness::new();
    server.run("HSET h f v");
    assert_eq!(eval(&mut server, "redis.setresp(3) return redis.call('hgetall','h').map.f"), "$1 v");
    assert_eq!(eval(&mut server, "return redis.call('hgetall','h')[2]"), "$1 v");
    assert_eq!(
        eval(&mut server, "redis.setresp(3) return {true,false,type(redis.call('get','x'))}"),
        "*3 :1 :0 $3 nil"
    );
    server.session.protocol = ardb_resp::Protocol::Resp3;
    assert_eq!(eval(&mut server, "redis.setresp(3) return redis.call('hgetall','h')"), "%1 $1 f $1 v");
    assert_eq!(
        eval(&mut server, "redis.setresp(3) return {true,false,{double=1.5},{big_number='12'},{set={a=1}}}"),
        "*5 #t #f ,1.5 (12 ~1 $1 a"
    );
    assert_eq!(eval(&mut server, "return {true,false}"), "*2 :1 _");
    assert_eq!(server.session.protocol, ardb_resp::Protocol::Resp3);
}

/// A replica must know whether a script of its master went wrong in a way in which it need not have gone wrong there.
#[test]
fn what_can_go_wrong_here_alone_is_a_fault_even_if_the_script_catches_it() {
    let mut server = Harness::new();
    for (script, fault) in [
        ("return 1", None),
        ("error('x')", None),
        ("return redis.call('incr', 'a', 'b', 'c')", None),
        ("redis.call('set', 'a', 'x') return redis.call('incr', 'a')", None),
        ("return nosuchglobal", None),
        ("redis.pcall('nosuch', 'a') return 1", Some("nosuch")),
        ("pcall(redis.call, 'nosuch') return 1", Some("nosuch")),
        ("return redis.call('NoSuch')", Some("NoSuch")),
        ("local s = 'x' while true do s = s .. s end", Some("not enough memory")),
        ("return +", Some("Error compiling script")),
    ] {
        let (found, _) = server.with_ctx(|ctx| {
            let args = [&b"EVAL"[..], script.as_bytes(), b"0"];
            let command = dispatch::resolve(&ctx.shared.table, &args).expect("EVAL is known");
            dispatch::execute(ctx, command, &args);
            ctx.fault.take()
        });
        let found = found.map(|fault| match fault {
            Fault::Unknown(name) => name,
            Fault::Interpreter(text) => text,
            Fault::Engine(error) => error.to_string(),
        });
        match (&found, fault) {
            (None, None) => {}
            (Some(found), Some(fault)) if found.contains(fault) => {}
            _ => panic!("{script}: {found:?} instead of {fault:?}"),
        }
    }
}

/// Masters before Redis 7 may pass the script itself on.
#[test]
fn a_script_in_a_stream_does_what_it_did_on_the_master() {
    let mut server = Harness::new();
    server.run("SADD s c a B b 10 9");
    server.run("SADD other c 10");
    server.run("HSET h z 9 a 8 c 7");
    server.origin = crate::Origin::Stream;
    let seeded = "$16 0.17082803611217";
    for (script, reply) in [
        ("return tostring(math.random())", seeded),
        ("math.randomseed(7); return tostring(math.random())", "$16 0.26644419658298"),
        ("return tostring(math.random())", seeded),
        ("return redis.call('smembers','s')", "*6 $2 10 $1 9 $1 B $1 a $1 b $1 c"),
        ("return redis.call('SUNION','s','other')", "*6 $2 10 $1 9 $1 B $1 a $1 b $1 c"),
        ("return redis.call('sdiff','s','other')", "*4 $1 9 $1 B $1 a $1 b"),
        ("return redis.call('sinter','s','other')", "*2 $2 10 $1 c"),
        ("return redis.call('hkeys','h')", "*3 $1 a $1 c $1 z"),
        ("return redis.call('hvals','h')", "*3 $1 7 $1 8 $1 9"),
        ("return redis.call('keys','*')", "*3 $1 h $5 other $1 s"),
        ("return redis.call('smembers','none')", "*0"),
        ("return redis.pcall('smembers','h').err ~= nil", ":1"),
    ] {
        assert_eq!(eval(&mut server, script), reply, "{script}");
    }
    server.origin = crate::Origin::Client;
    let mut draw = || eval(&mut server, "return tostring(math.random())");
    assert_ne!(draw(), draw(), "between scripts of clients the sequence goes on");
}
