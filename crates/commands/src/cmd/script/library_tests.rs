//! Tests of the libraries that scripts have, against what Redis 7.0 answers.

use crate::testing::Harness;

/// Scripts, each with the reply or the beginning of the error that Redis 7.0 gives.
fn check(cases: &[(&str, &str)]) {
    let mut server = Harness::new();
    for (script, expected) in cases {
        let reply = server.run_args(&[b"EVAL", script.as_bytes(), b"0"]);
        if expected.starts_with('-') {
            assert!(reply.starts_with(expected), "{script}: {reply}");
        } else {
            assert_eq!(reply, *expected, "{script}");
        }
    }
}

#[test]
fn bit_works_on_32_bits() {
    check(&[
        ("return {bit.tobit(2^32+5), bit.tobit(2^31), bit.bnot(0), bit.bor(1,2)}", "*4 :5 :-2147483648 :-1 :3"),
        (
            "return {bit.lshift(1,33), bit.rshift(-1,28), bit.arshift(-8,1), bit.rol(0x12345678,8)}",
            "*4 :2 :15 :-4 :878082066",
        ),
        (
            "return {bit.ror(0x12345678,8), bit.bswap(0x12345678), bit.band(7,3), bit.bxor(1,2,3)}",
            "*4 :2014458966 :2018915346 :3 :0",
        ),
        ("return {bit.tobit(0.5), bit.tobit(1.5), bit.tobit(2.5), bit.tobit(1e30)}", "*4 :0 :2 :2 :966823194"),
        (
            "return {bit.tohex(255), bit.tohex(255,4), bit.tohex(255,-4), bit.tohex(-1,20), bit.tohex(1,0)}",
            "*5 $8 000000ff $4 00ff $4 00FF $8 ffffffff $0",
        ),
        ("return bit.tohex(1,-2147483648)", "$8 00000001"),
        ("return bit.tobit('x')", "-ERR user_script:1: bad argument #1 to 'tobit' (number expected, got string)"),
        ("return bit.bor()", "-ERR user_script:1: bad argument #1 to 'bor' (number expected, got no value)"),
    ]);
}

const HEX: &str =
    "local function hex(s) return (s:gsub('.', function(c) return string.format('%02x', c:byte()) end)) end ";

#[test]
fn struct_packs_and_unpacks() {
    let hex = |rest: &str| format!("{HEX} return hex({rest})");
    check(&[
        (
            &hex("struct.pack('>bBhHiIlLTfds',1,2,3,4,5,6,7,8,9,1.5,2.5,'abc')"),
            "$108 01020003000400000005000000060000000000000007000000000000000800000000000000093fc00000400400000000000061626300",
        ),
        (
            &hex("struct.pack('<i3I5c3c0xx!4ib','77','88','abcdef','zz',9,1)"),
            "$42 4d000058000000006162637a7a0000000900000001",
        ),
        (&hex("struct.pack('!8bd',1,2)"), "$32 01000000000000000000000000000040"),
        (&hex("struct.pack('!bi',1,2)"), "$16 0100000002000000"),
        (&hex("struct.pack('>i8',-2)"), "$16 fffffffffffffffe"),
        ("return struct.pack('q',1)", "-ERR user_script:1: bad argument #1 to 'pack' (invalid format option 'q')"),
        ("return struct.pack('!3i',1)", "-ERR user_script:1: alignment 3 is not a power of 2"),
        ("return struct.pack('c5','abc')", "-ERR user_script:1: bad argument #3 to 'pack' (string too short)"),
        ("return {struct.unpack('>hs','\\1\\2abc\\0z')}", "*3 :258 $3 abc :7"),
        ("return {struct.unpack('>hs','\\1\\2abc')}", "-ERR user_script:1: unfinished string in data"),
        ("return {struct.unpack('bc0','\\3abcd')}", "*2 $3 abc :5"),
        ("return {struct.unpack('c0','abc')}", "-ERR user_script:1: format 'c0' needs a previous size"),
        (
            "return {struct.unpack('i','abc')}",
            "-ERR user_script:1: bad argument #2 to 'unpack' (data string too short)",
        ),
        ("return {struct.unpack('b','abc',3)}", "*2 :99 :4"),
        (
            "return {struct.unpack('b','abc',0)}",
            "-ERR user_script:1: bad argument #3 to 'unpack' (offset must be 1 or greater)",
        ),
        (
            "return {struct.unpack('b','abc',-1)}",
            "-ERR user_script:1: bad argument #2 to 'unpack' (data string too short)",
        ),
        ("return {struct.unpack('>i3','\\255\\255\\254')}", "*2 :-2 :4"),
        ("return tostring(struct.unpack('>I8','\\255\\255\\255\\255\\255\\255\\255\\255'))", "$18 1.844674407371e+19"),
        (
            "return {struct.size('bhilfd'), struct.size('!bhilfd'), struct.size('c5'), struct.size('> <')}",
            "*4 :27 :32 :5 :0",
        ),
        ("return struct.size('s')", "-ERR user_script:1: bad argument #1 to 'size' (option 's' has no fixed size)"),
        ("return struct.size('i99')", "-ERR user_script:1: integral size 99 is larger than limit of 32"),
        ("return struct.size('c2147483648')", "-ERR user_script:1: integral size overflow"),
        ("return struct.size('c2147483647')", ":2147483647"),
        ("return struct.size('c99999999999999999999999')", "-ERR user_script:1: integral size overflow"),
    ]);
}

#[test]
fn cmsgpack_packs_and_unpacks() {
    let hex = |rest: &str| format!("{HEX} return hex({rest})");
    check(&[
        (
            &hex("cmsgpack.pack(1,-1,128,-129,65536,2^40,-2^40,0.5,'abc',true,false,nil,{1,2},{a=1},1/3,0.1)"),
            "$134 01ffcc80d1ff7fce00010000cf0000010000000000d3ffffff0000000000ca3f000000a3616263c3c2c092010281a16101cb3fd5555555555555cb3fb999999999999a",
        ),
        (
            &hex("cmsgpack.pack({[1]=1,[3]=3}, {}, {[2]=1}, 2^53, 2^63, 2^64, -2^63,1e300)"),
            "$92 820101030390810201cf0020000000000000ca5f000000ca5f800000d38000000000000000cb7e37e43c8800759c",
        ),
        (&hex("cmsgpack.pack(function() end, cjson.null)"), "$4 c0c0"),
        ("return cmsgpack.pack()", "-ERR user_script:1: bad argument #0 to 'pack' (MessagePack pack needs input.)"),
        ("return cmsgpack.unpack('\\147\\1')", "-ERR user_script:1: Missing bytes in input."),
        ("return cmsgpack.unpack('\\193')", "-ERR user_script:1: Bad data format in input."),
        ("return {cmsgpack.unpack('\\1\\2\\3')}", "*3 :1 :2 :3"),
        ("return {cmsgpack.unpack_one('\\1\\2\\3')}", "*2 :1 :1"),
        ("return {cmsgpack.unpack_one('\\1\\2\\3',1)}", "*2 :2 :2"),
        (
            "return {cmsgpack.unpack_one('\\1\\2\\3',5)}",
            "-ERR user_script:1: Start offset 5 greater than input length 3.",
        ),
        (
            "return {cmsgpack.unpack_one('\\1\\2\\3',-1)}",
            "-ERR user_script:1: Invalid request to unpack with offset of -1 and limit of 3.",
        ),
        ("return {cmsgpack.unpack_limit('\\1\\2\\3',2)}", "*3 :2 :1 :2"),
        ("return {cmsgpack.unpack_limit('\\1\\2\\3',3,0)}", "*4 :-1 :1 :2 :3"),
        ("return cmsgpack.unpack('\\129\\192\\1')", "-ERR table index is nil"),
        ("return cmsgpack.unpack('\\221\\255\\255\\255\\255')", "-ERR user_script:1: Missing bytes in input."),
        ("return cmsgpack.unpack(string.rep('\\145', 100000))", "-ERR user_script:1: stack overflow"),
        ("return cmsgpack.unpack(cmsgpack.pack({1,{a='x'},string.rep('y',40)}))[2].a", "$1 x"),
        ("return #cmsgpack.unpack(cmsgpack.pack(string.rep('x',70000)))", ":70000"),
        (
            "local t = {} for i = 1, 20000 do t['k' .. i] = 'v' end return cmsgpack.unpack(cmsgpack.pack(t)).k20000",
            "$1 v",
        ),
    ]);
}

#[test]
fn cjson_encodes() {
    check(&[
        ("return cjson.encode({1,'a',true,cjson.null})", "$17 [1,\"a\",true,null]"),
        ("return cjson.encode({})", "$2 {}"),
        ("return cjson.encode({[1]=1,[3]=3})", "$10 [1,null,3]"),
        (
            "return cjson.encode({[1]=1,[100]=3})",
            "-ERR user_script:1: Cannot serialise table: excessively sparse array",
        ),
        ("return cjson.encode({[0]=1})", "$7 {\"0\":1}"),
        (
            "return cjson.encode({[true]=1})",
            "-ERR user_script:1: Cannot serialise boolean: table key must be a number or string",
        ),
        (
            "return cjson.encode({a=function() end})",
            "-ERR user_script:1: Cannot serialise function: type not supported",
        ),
        ("return cjson.encode('a/b\"c\\\\\\n\\1\\127')", "$25 \"a\\/b\\\"c\\\\\\n\\u0001\\u007f\""),
        ("return cjson.encode(0/0)", "-ERR user_script:1: Cannot serialise number: must not be NaN or Inf"),
        ("return cjson.encode()", "-ERR user_script:1: bad argument #1 to 'encode' (expected 1 argument)"),
        ("local t={} t[1]=t return cjson.encode(t)", "-ERR user_script:1: Cannot serialise, excessive nesting (1001)"),
        (
            "return cjson.encode_max_depth(0)",
            "-ERR user_script:1: bad argument #1 to 'encode_max_depth' (expected integer between 1 and 2147483647)",
        ),
        (
            "return cjson.encode_number_precision(15)",
            "-ERR user_script:1: bad argument #1 to 'encode_number_precision' (expected integer between 1 and 14)",
        ),
        (
            "return cjson.encode_invalid_numbers('x')",
            "-ERR user_script:1: bad argument #1 to 'encode_invalid_numbers' (invalid option 'x')",
        ),
        ("cjson.encode_invalid_numbers('null') return cjson.encode({0/0,1/0})", "$11 [null,null]"),
        ("cjson.encode_invalid_numbers(true) return cjson.encode({0/0,1/0,-1/0})", "$14 [nan,inf,-inf]"),
        (
            "return cjson.encode_keep_buffer(1,2)",
            "-ERR user_script:1: bad argument #2 to 'encode_keep_buffer' (found too many arguments)",
        ),
        (
            "cjson.encode_sparse_array(true) local t = cjson.decode(cjson.encode({[1]=1,[100]=3})) return {t['1'],t['100']}",
            "*2 :1 :3",
        ),
        (
            "local c = cjson.new() c.encode_max_depth(1) return {cjson.encode_max_depth(), c.encode_max_depth()}",
            "*2 :1000 :1",
        ),
    ]);
}

#[test]
fn cjson_decodes() {
    check(&[
        (
            "return table.concat(cjson.decode('[0.0, -5e3, -1, 0.3e-3, 1023.2, 0e10]'), ' ')",
            "$26 0 -5000 -1 0.0003 1023.2 0",
        ),
        (
            "local d = cjson.decode('{\"a\": \"x\", \"b\":[1,{\"c\":null}]}') return {d.a, d.b[1], d.b[2].c == cjson.null}",
            "*3 $1 x :1 :1",
        ),
        ("return cjson.decode('')", "-ERR user_script:1: Expected value but found T_END at character 1"),
        ("return cjson.decode({})", "-ERR user_script:1: bad argument #1 to 'decode' (string expected, got table)"),
        (
            "return cjson.decode('[1,2')",
            "-ERR user_script:1: Expected comma or array end but found T_END at character 5",
        ),
        ("return cjson.decode('[1,]')", "-ERR user_script:1: Expected value but found T_ARR_END at character 4"),
        ("return cjson.decode('{\"a\" 1}')", "-ERR user_script:1: Expected colon but found T_NUMBER at character 6"),
        (
            "return cjson.decode('{a:1}')",
            "-ERR user_script:1: Expected object key string but found invalid token at character 2",
        ),
        (
            "return cjson.decode('{\"a\":1 \"b\"}')",
            "-ERR user_script:1: Expected comma or object end but found T_STRING at character 8",
        ),
        (
            "return cjson.decode('\"abc')",
            "-ERR user_script:1: Expected value but found unexpected end of string at character 5",
        ),
        (
            "return cjson.decode('\"\\\\q\"')",
            "-ERR user_script:1: Expected value but found invalid escape code at character 2",
        ),
        (
            "return cjson.decode('\"\\\\u12\"')",
            "-ERR user_script:1: Expected value but found invalid unicode escape code at character 2",
        ),
        ("return cjson.decode('\"\\\\u00e9\\\\ud83d\\\\ude00\"')", "$6 é😀"),
        (
            "return cjson.decode('\"\\\\ud83d\"')",
            "-ERR user_script:1: Expected value but found invalid unicode escape code at character 2",
        ),
        ("return cjson.decode('1 2')", "-ERR user_script:1: Expected the end but found T_NUMBER at character 3"),
        ("return cjson.decode('nul')", "-ERR user_script:1: Expected value but found invalid token at character 1"),
        (
            "return {cjson.decode('0x10'), cjson.decode('+1'), cjson.decode('01'), cjson.decode('1.5e3')}",
            "*4 :16 :1 :1 :1500",
        ),
        ("return {tostring(cjson.decode('nan')), tostring(cjson.decode('-inf'))}", "*2 $3 nan $4 -inf"),
        ("return cjson.decode('-')", "-ERR user_script:1: Expected value but found invalid number at character 1"),
        (
            "return cjson.decode(string.rep('[',1001)..string.rep(']',1001))",
            "-ERR user_script:1: Found too many nested data structures (1001) at character 1001",
        ),
        (
            "cjson.decode_max_depth(100000) return cjson.decode(string.rep('[',90000))",
            "-ERR user_script:1: Found too many nested data structures (1201)",
        ),
    ]);
}
