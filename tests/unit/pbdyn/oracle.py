"""Python's protobuf as the oracle for pbdyn: wire bytes and JSON, both ways, over generated messages.

Prints TAP. CAIRN_SEED replays a run (the seed is printed), CAIRN_TEST_SCALE multiplies the counts.
Where our contract differs from Python's json_format, the difference is in DIFFERENCES below.
"""

import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import warnings

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    from google.protobuf import (any_pb2, api_pb2, duration_pb2, empty_pb2, field_mask_pb2,  # noqa: F401
                                 source_context_pb2, struct_pb2, timestamp_pb2, type_pb2, wrappers_pb2)
except ImportError as e:
    print(f'1..0 # SKIP Python has no protobuf: {e}')
    sys.exit(0)

BUILD = os.environ.get('CAIRN_BUILDDIR', '.')
SCALE = float(os.environ.get('CAIRN_TEST_SCALE', '1'))
SEED = int(os.environ.get('CAIRN_SEED', str(random.SystemRandom().randrange(2**32))))
# libprotobuf reports every broken string on stderr by itself: that goes nowhere, Python's own errors do not.
sys.stderr = os.fdopen(os.dup(2), 'w')
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
ANSWER_MAX_S = 60
TYPES = ['Scalars', 'Optionals', 'Lists', 'Maps', 'Choices', 'Tree', 'Known', 'KnownLists', 'Names', 'All']


# --- the two sides -------------------------------------------------------------------------------

class Ours:
    """The program under test, by pipe."""

    def __init__(self):
        self.process = subprocess.Popen([os.path.join(BUILD, 'pbdyn_oracle')], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=sys.stderr)

    def silent(self, number, frame):
        self.process.kill()
        raise AssertionError(f'the program did not answer within {ANSWER_MAX_S} s')

    def ask(self, op, *args):
        signal.signal(signal.SIGALRM, self.silent)
        signal.alarm(ANSWER_MAX_S)
        try:
            return self.exchange(op, *args)
        finally:
            signal.alarm(0)

    def exchange(self, op, *args):
        body = op.encode() + b''.join(
            struct.pack('<I', len(a)) + a for a in (x.encode() if isinstance(x, str) else x for x in args))
        self.process.stdin.write(struct.pack('<I', len(body)) + body)
        self.process.stdin.flush()
        head = self.process.stdout.read(5)
        if len(head) != 5:
            raise AssertionError(f'the program died (status {self.process.wait(ANSWER_MAX_S)}) on {op} {args!r}')
        result = self.process.stdout.read(struct.unpack('<I', head[:4])[0] - 1)
        return head[4], result


def load_pool():
    """The test's types in Python, from the same descriptor set."""
    with open(os.path.join(BUILD, 'tests/unit/pbdyn/kinds.pb'), 'rb') as f:
        raw = f.read()
    files = descriptor_pb2.FileDescriptorSet.FromString(raw).file
    pool = descriptor_pool.Default()
    for f in files:
        if f.name.startswith('kinds'):
            pool.AddSerializedFile(f.SerializeToString())
    return raw, pool


def new(pool, name):
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(name))()


# --- generating messages ---------------------------------------------------------------------------

STRINGS = ['', 'a', 'plain text', 'quote " and \\ and /', '\x00\x01\x1f\x7f', '\b\f\n\r\t', '<b>&amp;\u2028',
           'äöü€', '\U0001f600', '\U0010ffff', '\ufffe', ' ', 'null', 'x' * 300]


def gen_float(rng, single):
    pick = rng.randrange(8)
    if pick == 0:
        return rng.choice([0.0, -0.0, 1.0, -1.0, 0.1, 1.5, 1e21, 1e-7, 123456789.0, 5e-324,
                           2.2250738585072014e-308,
                           1.7976931348623157e308]) if not single else rng.choice(
            [0.0, -0.0, 1.0, 0.1, 1.1754944e-38, 3.4028235e38, 16777217.0])
    if pick == 1:
        return rng.choice([math.inf, -math.inf, math.nan])
    if pick == 2:
        return float(rng.randrange(-1000, 1000))
    if single:  # subnormal ones Python does not print in their shortest form; a unit test has these
        v = struct.unpack('<f', struct.pack('<I', rng.getrandbits(32)))[0]
        return math.nan if v != v else 0.0 if 0 < abs(v) < 1.1754944e-38 else v
    v = struct.unpack('<d', struct.pack('<Q', rng.getrandbits(64)))[0]
    return math.nan if v != v else v


def gen_int(rng, low, high):
    pick = rng.randrange(4)
    if pick == 0:
        return rng.choice([low, high, 0, 1, max(low, -1), high - 1, low + 1])
    if pick == 1:
        return rng.randrange(max(low, -100), 100)
    return rng.randrange(low, high + 1) >> rng.randrange(0, 60) if low == 0 else rng.randrange(low, high + 1)


def gen_scalar(rng, field):
    k = field.type
    if k == field.TYPE_DOUBLE:
        return gen_float(rng, False)
    if k == field.TYPE_FLOAT:
        return gen_float(rng, True)
    if k in (field.TYPE_INT64, field.TYPE_SFIXED64, field.TYPE_SINT64):
        return gen_int(rng, -2**63, 2**63 - 1)
    if k in (field.TYPE_UINT64, field.TYPE_FIXED64):
        return gen_int(rng, 0, 2**64 - 1)
    if k in (field.TYPE_INT32, field.TYPE_SFIXED32, field.TYPE_SINT32):
        return gen_int(rng, -2**31, 2**31 - 1)
    if k in (field.TYPE_UINT32, field.TYPE_FIXED32):
        return gen_int(rng, 0, 2**32 - 1)
    if k == field.TYPE_BOOL:
        return rng.random() < 0.5
    if k == field.TYPE_STRING:
        return rng.choice(STRINGS)
    if k == field.TYPE_BYTES:
        return bytes(rng.getrandbits(8) for _ in range(rng.choice([0, 1, 2, 3, 4, 17, 100])))
    if field.enum_type.full_name == 'google.protobuf.NullValue':
        return 0
    if field.file.syntax == 'proto3' and rng.random() < 0.3:
        return rng.choice([99, -99, 2**31 - 1, -2**31])
    return rng.choice(field.enum_type.values).number


class Generator:
    def __init__(self, rng, pool, map_max):
        self.rng, self.pool, self.map_max = rng, pool, map_max

    def known(self, msg, depth):
        """Fills a well-known type with something that has a JSON form; False: not one of these."""
        rng, name = self.rng, msg.DESCRIPTOR.full_name
        if name == 'google.protobuf.Timestamp':
            first, last = -62135596800, 253402300799
            msg.seconds = rng.choice([first, last, 0, -1, rng.randrange(first, last + 1)])
            msg.nanos = rng.choice([0, 1, 999999999, 500000000, 120000, rng.randrange(10**9)])
        elif name == 'google.protobuf.Duration':
            sign = rng.choice([1, -1])
            msg.seconds = sign * rng.choice([0, 1, 315576000000, rng.randrange(10**6)])
            msg.nanos = sign * rng.choice([0, 1, 999999999, 10**6, rng.randrange(10**9)])
        elif name == 'google.protobuf.FieldMask':
            for _ in range(rng.randrange(4)):
                msg.paths.append(rng.choice(['a', 'foo_bar', 'a.b_c.d', 'x1', 'f_b_c']))
        elif name == 'google.protobuf.Any':
            if rng.random() < 0.8:
                inner = new(self.pool, rng.choice(
                    ['kinds.Scalars', 'kinds.Tree', 'kinds.Choices', 'kinds.Known',
                     'google.protobuf.Duration',
                     'google.protobuf.Any', 'google.protobuf.Value', 'google.protobuf.Struct', 'kinds2.Old',
                     'google.protobuf.Empty', 'google.protobuf.Int64Value', 'google.protobuf.FieldMask']))
                Generator(self.rng, self.pool, min(self.map_max, 1)).fill(inner, depth + 2)
                msg.Pack(inner, rng.choice(['type.googleapis.com/', 'example.com']), deterministic=True)
        elif name == 'google.protobuf.Value':
            kind = rng.randrange(6 if depth < 5 else 4)
            if kind == 0:
                msg.null_value = 0
            elif kind == 1:
                v = gen_float(rng, False)
                msg.number_value = v if math.isfinite(v) else 0.5
            elif kind == 2:
                msg.string_value = rng.choice(STRINGS)
            elif kind == 3:
                msg.bool_value = rng.random() < 0.5
            elif kind == 4:
                msg.struct_value.SetInParent()
                self.known(msg.struct_value, depth + 1)
            else:
                msg.list_value.SetInParent()
                self.known(msg.list_value, depth + 1)
        elif name == 'google.protobuf.Struct':
            for key in rng.sample(STRINGS, rng.randrange(min(self.map_max, 3) + 1)):
                self.known(msg.fields[key], depth + 1)
        elif name == 'google.protobuf.ListValue':
            for _ in range(rng.randrange(4)):
                self.known(msg.values.add(), depth + 1)
        else:
            return False
        return True

    def map_field(self, msg, field, depth):
        target = getattr(msg, field.name)
        key_field, value_field = (field.message_type.fields_by_name[n] for n in ('key', 'value'))
        for _ in range(self.rng.randrange(self.map_max + 1)):
            key = gen_scalar(self.rng, key_field)
            if value_field.message_type:
                self.fill(target[key], depth + 1)
            else:
                target[key] = gen_scalar(self.rng, value_field)

    def fill(self, msg, depth=0):
        if self.known(msg, depth):
            return
        fields = msg.DESCRIPTOR.fields
        share = self.rng.choice([0.2, 0.5, 0.9]) / (1 + depth)
        for field in fields:
            if self.rng.random() > share or (field.message_type and depth > 5):
                continue
            if field.containing_oneof and msg.WhichOneof(field.containing_oneof.name):
                continue
            if field.message_type and field.message_type.GetOptions().map_entry:
                self.map_field(msg, field, depth)
            elif field.label == field.LABEL_REPEATED:
                for _ in range(self.rng.randrange(1, 5)):
                    if field.message_type:
                        self.fill(getattr(msg, field.name).add(), depth + 1)
                    else:
                        getattr(msg, field.name).append(gen_scalar(self.rng, field))
            elif field.message_type:
                getattr(msg, field.name).SetInParent()
                self.fill(getattr(msg, field.name), depth + 1)
            else:
                setattr(msg, field.name, gen_scalar(self.rng, field))


# --- comparing -----------------------------------------------------------------------------------------

def same_json(a, b):
    """Equal, and of one type: 1 and true are not the same, -0.0 and 0.0 neither; 1 and 1.0 are."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_json(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    return a == b


def loads_ours(raw):
    """Our output as JSON; -0 is what we print for -0.0."""
    text = raw.decode('utf-8')
    return json.loads(text, parse_int=lambda s: -0.0 if s == '-0' else int(s))


def canonical(msg):
    return msg.SerializeToString(deterministic=True)


class Failure(Exception):
    pass


def check(condition, *what):
    if not condition:
        raise Failure('\n'.join(x if isinstance(x, str) else repr(x) for x in what))


class Checks:
    def __init__(self, ours, pool, rng):
        self.ours, self.pool, self.rng = ours, pool, rng

    def message(self, name, map_max=1):
        msg = new(self.pool, name)
        Generator(self.rng, self.pool, map_max).fill(msg)
        return msg

    def names(self):
        return ['kinds.' + t for t in TYPES] + ['kinds2.Old']

    def wire_to_json(self):
        name = self.rng.choice(self.names())
        msg = self.message(name, map_max=4)
        wire = msg.SerializeToString()
        code, got = self.ours.ask('P', name, wire)
        want = json.loads(json_format.MessageToJson(msg, including_default_value_fields=True,
                                                    descriptor_pool=self.pool))
        check(code == 0, f'{name} refused', got, want)
        check(same_json(loads_ours(got), want), f'{name} printed otherwise', wire, got.decode(),
              json.dumps(want))
        check(b'": ' not in got.replace(b'\\"', b'') or b' ' in json.dumps(want).encode(), 'not compact', got)

    def json_to_wire(self):
        name = self.rng.choice(self.names())
        msg = self.message(name, map_max=self.rng.choice([1, 1, 4]))
        pick = self.rng.random
        text = json_format.MessageToJson(
            msg, including_default_value_fields=pick() < 0.3, preserving_proto_field_name=pick() < 0.3,
            indent=self.rng.choice([None, 0, 3]),
            use_integers_for_enums=pick() < 0.3 and name != 'kinds.Known',
            ensure_ascii=pick() < 0.5, descriptor_pool=self.pool)
        want = new(self.pool, name)
        try:
            json_format.Parse(text, want, descriptor_pool=self.pool)
        except json_format.ParseError:
            return  # some floats that Python prints it does not read: FLT_MAX in its shortest form
        code, got = self.ours.ask('J', name, text)
        check(code == 0, f'{name} refused', got, text)
        back = new(self.pool, name)
        back.ParseFromString(got)
        check(canonical(back) == canonical(want), f'{name} read otherwise', text, got, canonical(want))
        check(len(got) == len(canonical(want)), 'not canonical', text, got)
        if all_maps_small(want):
            check(got == canonical(want), 'not canonical', text, got, canonical(want))

    def wire_to_wire(self):
        name = self.rng.choice(self.names())
        msg = self.message(name)
        wire = shuffle_fields(self.rng, msg.SerializeToString())
        if self.rng.random() < 0.3:  # unknown fields stay, behind the known
            wire = b'\xfa\x7f\x03abc' + wire + b'\x80\x80\x01\x05'
        want = new(self.pool, name)
        want.ParseFromString(wire)
        code, got = self.ours.ask('W', name, wire)
        check(code == 0, f'{name} refused', got, wire)
        check(got == canonical(want), f'{name} written otherwise', wire, got, canonical(want))

    def broken_wire(self):
        name = self.rng.choice(self.names())
        wire = mutate(self.rng, self.message(name).SerializeToString())
        want = new(self.pool, name)
        # A stray end of a group is a warning in Python, which drops what follows: refused, for us.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter('always')
            try:
                want.ParseFromString(wire)
                accepted = not warned
            except Exception:
                accepted = False
        code, got = self.ours.ask('W', name, wire)
        if accepted != (code == 0):
            check(accepted and (b'cut off or has no legal tag' in got or b'middle of a value' in got) and
                  has_long_varint(wire),
                  f'{name}: Python {"takes" if accepted else "refuses"} it, we do not agree: {got!r}', wire)
        elif code == 0 and all_maps_small(want) and name != 'kinds2.Old':
            back = new(self.pool, name)
            back.ParseFromString(got)
            check(canonical(back) == canonical(want), f'{name} written otherwise', wire, got, canonical(want))

    def broken_json(self):
        name = self.rng.choice(self.names())
        text = json_format.MessageToJson(self.message(name), indent=None, descriptor_pool=self.pool)
        raw = mutate_text(self.rng, text.encode())
        want = new(self.pool, name)
        try:
            json_format.Parse(raw, want, descriptor_pool=self.pool)
            accepted = True
        except (json_format.ParseError, json_format.Error, UnicodeDecodeError, RecursionError):
            accepted = False
        except Exception:  # Python fails where it should refuse (a wrong type for a string, a wrong Any ...)
            accepted = False
        code, got = self.ours.ask('J', name, raw)
        if code == 0:
            if not accepted:
                check(any(re_found(d, raw) for d in WE_TAKE_MORE), f'{name}: Python refuses it, we take it',
                      raw, got)
                return
            back = new(self.pool, name)
            back.ParseFromString(got)
            check(canonical(back) == canonical(want) or b'-0' in raw, f'{name} read otherwise', raw, got,
                  canonical(want))
        elif accepted:
            check(any(d in got for d in WE_ARE_STRICTER), f'{name}: we refuse what Python takes: {got!r}',
                  raw)


# What we refuse and Python's json_format takes, by our error text:
WE_ARE_STRICTER = [
    b'this is not JSON',         # NaN, Infinity and -Infinity without quotes
    b'is not base64',            # Python skips characters that are not in the alphabet, and misplaced padding
    b'is not an int', b'is not a uint', b'is not an sint',
    b'is not a fixed', b'is not an sfixed',  # "1_000", "007"
    b'is not a float', b'is not a double',  # "1_0", "inf", "infinity", "+1", ".5"
    b'is not a name or number',  # " 1", true
    b'is not a time', b'is not a duration',  # strptime takes one-digit days and hours, 24:00 zones, "+1.5s"
    b'given twice',              # one field by both its names; one map key as 1 and "1"
    b'found true', b'found false',  # a bool is an int to Python where enums are read
    b'expected a value, found null',  # null as a NullValue map value
    b'must be in lowerCamelCase',  # a FieldMask path with '_'
    b'names no message type',    # "x/y/kinds.Tree": we take what follows the first '/', Python the last
    b'"@type" and "value" only',  # further members beside "value" of an Any
    b'control character',
    b'expected an object',       # "" or [] for a map, struct or message
    b'expected a number', b'expected a string',
    b'expected an array',
    b'has no such field',        # an extension in brackets
]
# What we take and Python refuses, by the input:
WE_TAKE_MORE = [
    rb'"-?[0-9.]+[eE][+-]?[0-9]+"',   # "1e2" as an integer in quotes
    rb'"-?[0-9]+\.0*"',               # "1.0"
    rb'"size(Default)?": *"?-?[0-9]',  # proto2's enums are open with us
    rb'null',                         # null as an item of NullValue
    rb'"@type"',                      # what Python's Any code fails on (KeyError, TypeError)
    rb'3.402823',                     # FLT_MAX in its shortest form
    rb'[0-9]{10,}',                   # "9007199254740993.0": exact with us
    rb'\\u',                          # Python's own surrogate check, and its json module
    rb'e[+-]?[0-9]',
]


def re_found(pattern, raw):
    import re
    return re.search(pattern, raw) is not None


def all_maps_small(msg):
    for field, value in msg.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            if len(value) > 1:
                return False
            if field.message_type.fields_by_name['value'].message_type:
                if not all(all_maps_small(value[k]) for k in value):
                    return False
        elif field.message_type:
            items = value if field.label == field.LABEL_REPEATED else [value]
            if field.message_type.full_name == 'google.protobuf.Any':
                continue
            if not all(all_maps_small(v) for v in items):
                return False
    return True


def varint(raw, i):
    v = shift = 0
    while True:
        b = raw[i]
        v |= (b & 127) << shift
        i, shift = i + 1, shift + 7
        if b < 128:
            return v, i


def split_fields(raw):
    out, i = [], 0
    while i < len(raw):
        begin = i
        tag, i = varint(raw, i)
        wire = tag & 7
        if wire == 0:
            _, i = varint(raw, i)
        elif wire == 1:
            i += 8
        elif wire == 5:
            i += 4
        elif wire == 2:
            n, i = varint(raw, i)
            i += n
        else:  # a group: leave the rest as it is
            i = len(raw)
        out.append((tag, raw[begin:i]))
    return out


def shuffle_fields(rng, raw):
    """The same message with its fields in another order; occurrences of one number keep theirs."""
    fields = split_fields(raw)
    order = list(range(len(fields)))
    rng.shuffle(order)
    queues = {}
    for tag, field in fields:
        queues.setdefault(tag, []).append(field)
    return b''.join(queues[fields[i][0]].pop(0) for i in order)


def has_long_varint(raw):
    """A varint of more than 64 bits, or a tag of more than 32: C++ drops what is too much, we refuse it."""
    run = 0
    for b in raw:
        run = run + 1 if b >= 128 else 0
        if run >= 4:
            return True
    return False


def mutate(rng, raw):
    raw = bytearray(raw)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(raw) + 1)
        pick = rng.randrange(4)
        if pick == 0 and raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
        elif pick == 1:
            del raw[at:at + rng.randrange(1, 4)]
        elif pick == 2:
            raw[at:at] = bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 3)))
        else:
            raw = raw[:at]
    return bytes(raw)


TOKENS = [b'null', b'true', b'0', b'-1', b'1.5', b'1e2', b'""', b'"a"', b'[]', b'{}', b',', b':', b'{', b'}',
          b'[', b']', b'"', b'\\u0041', b'\\ud800', b'"NaN"', b'\xff', b'9007199254740993', b'"@type"',
          b'3000000000']


def mutate_text(rng, raw):
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(len(raw) + 1)
        pick = rng.randrange(4)
        if pick == 0:
            raw = raw[:at] + rng.choice(TOKENS) + raw[at:]
        elif pick == 1:
            raw = raw[:at] + raw[at + rng.randrange(1, 4):]
        elif pick == 2:  # one value for another
            end = min((i for i in (raw.find(c, at) for c in b',}]') if i >= 0), default=len(raw))
            begin = raw.rfind(b':', 0, end) + 1
            raw = raw[:begin] + rng.choice(TOKENS) + raw[end:]
        else:
            raw = raw[:at]
    return raw


# --- cases by hand ------------------------------------------------------------------------------------------

# (type, JSON): both must agree, in refusing too.
AGREED = [
    ('Scalars', '{}'), ('Scalars', ' \t\r\n{ } '), ('Scalars', ''), ('Scalars', 'null'), ('Scalars', '5'),
    ('Scalars', '{} x'), ('Scalars', '{"anInt32": 1,}'), ('Scalars', '{anInt32: 1}'),
    ('Scalars', "{'anInt32': 1}"),
    ('Scalars', '{"anInt32": 1e2}'), ('Scalars', '{"anInt32": 1.0}'), ('Scalars', '{"anInt32": 1.5}'),
    ('Scalars', '{"anInt32": "12"}'), ('Scalars', '{"anInt32": " 12"}'),
    ('Scalars', '{"anInt32": 2147483648}'),
    ('Scalars', '{"anInt32": -2147483648}'), ('Scalars', '{"anInt32": -2147483649}'),
    ('Scalars', '{"anInt32": true}'),
    ('Scalars', '{"anInt32": 01}'), ('Scalars', '{"anInt32": 1.}'), ('Scalars', '{"anInt32": .5}'),
    ('Scalars', '{"anInt32": +1}'), ('Scalars', '{"anInt32": 1e}'), ('Scalars', '{"anInt32": ""}'),
    ('Scalars', '{"anInt32": null}'), ('Scalars', '{"an_int32": 5}'), ('Scalars', '{"an_Int32": 5}'),
    ('Scalars', '{"anInt64": "9223372036854775807"}'), ('Scalars', '{"anInt64": 9223372036854775807}'),
    ('Scalars', '{"anInt64": 9223372036854775808}'), ('Scalars', '{"anInt64": "-9223372036854775808"}'),
    ('Scalars', '{"aUint64": 18446744073709551615}'), ('Scalars', '{"aUint64": "18446744073709551615"}'),
    ('Scalars', '{"aUint64": 18446744073709551616}'), ('Scalars', '{"aUint64": -1}'),
    ('Scalars', '{"aUint32": 4294967295}'), ('Scalars', '{"aUint32": 4294967296}'),
    ('Scalars', '{"aDouble": "1.5"}'), ('Scalars', '{"aDouble": "NaN"}'),
    ('Scalars', '{"aDouble": "Infinity"}'),
    ('Scalars', '{"aDouble": "-Infinity"}'), ('Scalars', '{"aDouble": 1e400}'),
    ('Scalars', '{"aDouble": -0.0}'),
    ('Scalars', '{"aDouble": 4.9e-324}'), ('Scalars', '{"aDouble": 1}'), ('Scalars', '{"aDouble": ""}'),
    ('Scalars', '{"aFloat": 3.4028234663852886e38}'), ('Scalars', '{"aFloat": 3.5e38}'),
    ('Scalars', '{"aFloat": 1e-50}'),
    ('Scalars', '{"aBool": "true"}'), ('Scalars', '{"aBool": 1}'), ('Scalars', '{"aBool": true}'),
    ('Scalars', '{"aString": 1}'), ('Scalars', '{"aString": "\\ud83d\\ude00"}'),
    ('Scalars', '{"aString": "\\ud83d"}'),
    ('Scalars', '{"aString": "\\ude00"}'), ('Scalars', '{"aString": "\\ud83dx"}'),
    ('Scalars', '{"aString": "a\nb"}'),
    ('Scalars', '{"aString": "\\x"}'), ('Scalars', '{"aString": "\\u00e"}'),
    ('Scalars', '{"aString": "\\u0000"}'),
    ('Scalars', '{"aString": "a'), ('Scalars', '{"aString": "\\'), ('Scalars', '{"aString": ["a"]}'),
    ('Scalars', '{"someBytes": "AQID"}'), ('Scalars', '{"someBytes": "AQ=="}'),
    ('Scalars', '{"someBytes": "AQ"}'),
    ('Scalars', '{"someBytes": "-_-_"}'), ('Scalars', '{"someBytes": ""}'), ('Scalars', '{"someBytes": 1}'),
    ('Scalars', '{"aColor": "COLOR_RED"}'), ('Scalars', '{"aColor": "COLOR_CRIMSON"}'),
    ('Scalars', '{"aColor": 7}'),
    ('Scalars', '{"aColor": 99}'), ('Scalars', '{"aColor": "COLOR_PINK"}'), ('Scalars', '{"aColor": "7"}'),
    ('Scalars', '{"aColor": -3}'), ('Scalars', '{"aColor": null}'),
    ('Scalars', '{"anInt32": 1, "anInt32": 2}'), ('Scalars', '{"unknown": 1}'), ('Scalars', '{"@type": "x"}'),
    ('Scalars', '{"anInt32": {}}'), ('Scalars', '{"": 1}'), ('Scalars', '{"anInt32": 1 "aBool": true}'),
    ('Lists', '{"int32s": [1, "2", 3e0]}'), ('Lists', '{"int32s": [1, null]}'), ('Lists', '{"int32s": null}'),
    ('Lists', '{"int32s": 1}'), ('Lists', '{"int32s": []}'), ('Lists', '{"int32s": [1,]}'),
    ('Lists', '{"int32s": [}'),
    ('Lists', '{"scalars": [{}, {"anInt32": 1}]}'), ('Lists', '{"scalars": [null]}'),
    ('Lists', '{"strings": ["", "a"]}'),
    ('Maps', '{"strings": {"a": "b", "": ""}}'), ('Maps', '{"strings": {"a": null}}'),
    ('Maps', '{"strings": null}'),
    ('Maps', '{"strings": {"a": "b", "a": "c"}}'), ('Maps', '{"strings": []}'),
    ('Maps', '{"int32s": {"1": 2}}'),
    ('Maps', '{"int32s": {"x": 2}}'), ('Maps', '{"int32s": {"": 2}}'),
    ('Maps', '{"bools": {"true": "a", "false": "b"}}'),
    ('Maps', '{"bools": {"1": "a"}}'), ('Maps', '{"bools": {"True": "a"}}'),
    ('Maps', '{"fixed32s": {"1": {}}}'),
    ('Maps', '{"fixed32s": {"1": null}}'), ('Maps', '{"fixed64s": {"1": null}}'),
    ('Maps', '{"int64s": {"-1": 1}}'),
    ('Maps', '{"uint32s": {"-1": 1}}'), ('Maps', '{"sint64s": {"5": "COLOR_BLUE"}}'),
    ('Maps', '{"sfixed64s": {"5": {}}}'),
    ('Choices', '{"aString": "x", "aBool": true}'), ('Choices', '{"aString": "x", "aBool": null}'),
    ('Choices', '{"aString": ""}'), ('Choices', '{"anInt64": 0, "aUint32": 0}'),
    ('Choices', '{"nothing": null}'),
    ('Choices', '{"value": null}'), ('Choices', '{"scalars": {}}'), ('Choices', '{"scalars": null}'),
    ('Choices', '{"wrapped": null}'), ('Choices', '{"wrapped": 0}'), ('Choices', '{"empty": {}}'),
    ('Choices', '{"empty": {"a": 1}}'), ('Choices', '{"aDouble": 0}'),
    ('Choices', '{"nothing": "NULL_VALUE"}'),
    ('Optionals', '{"anInt32": 0, "aString": "", "aBool": false}'), ('Optionals', '{"scalars": {}}'),
    ('Optionals', '{"anInt32": null}'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05Z"}'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05.123456789Z"}'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05+07:30"}'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05.5-08:00"}'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05"}'), ('Known', '{"timestamp": "2006-01-02 15:04:05Z"}'),
    ('Known', '{"timestamp": "2006-02-30T15:04:05Z"}'), ('Known', '{"timestamp": "2004-02-29T15:04:05Z"}'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05.1234567891Z"}'),
    ('Known', '{"timestamp": "0000-01-01T00:00:00Z"}'),
    ('Known', '{"timestamp": "0001-01-01T00:00:00Z"}'),
    ('Known', '{"timestamp": "9999-12-31T23:59:59.999999999Z"}'),
    ('Known', '{"timestamp": "2006-01-02T24:04:05Z"}'), ('Known', '{"timestamp": 5}'),
    ('Known', '{"timestamp": ""}'),
    ('Known', '{"timestamp": "2006-01-02t15:04:05Z"}'), ('Known', '{"timestamp": null}'),
    ('Known', '{"duration": "1.5s"}'), ('Known', '{"duration": "-0.5s"}'),
    ('Known', '{"duration": "-1.000000001s"}'),
    ('Known', '{"duration": "1"}'), ('Known', '{"duration": "s"}'),
    ('Known', '{"duration": "315576000001s"}'),
    ('Known', '{"duration": "315576000000s"}'), ('Known', '{"duration": "1m"}'), ('Known', '{"duration": 1}'),
    ('Known', '{"fieldMask": "a,fooBar.b"}'), ('Known', '{"fieldMask": ""}'),
    ('Known', '{"fieldMask": "foo_bar"}'),
    ('Known', '{"struct": {"a": [1, {"b": null}], "c": true}}'), ('Known', '{"struct": []}'),
    ('Known', '{"struct": {}}'),
    ('Known', '{"value": null}'), ('Known', '{"value": [[], {}]}'),
    ('Known', '{"listValue": [null, 1, "a"]}'), ('Known', '{"listValue": {}}'),
    ('Known', '{"nullValue": null}'),
    ('Known', '{"int64Value": "5"}'), ('Known', '{"int64Value": 5}'),
    ('Known', '{"int64Value": {"value": 5}}'),
    ('Known', '{"boolValue": false}'), ('Known', '{"stringValue": ""}'), ('Known', '{"bytesValue": "AQ"}'),
    ('Known', '{"any": {}}'), ('Known', '{"any": null}'), ('Known', '{"any": []}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/kinds.Tree", "name": "x"}}'),
    ('Known', '{"any": {"name": "x", "@type": "type.googleapis.com/kinds.Tree"}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/kinds.Nothing"}}'), ('Known', '{"any": {"name": "x"}}'),
    ('Known', '{"any": {"@type": "kinds.Nothing"}}'), ('Known', '{"any": {"@type": ""}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "5s"}}'),
    ('Known', '{"any": {"value": "5s", "@type": "type.googleapis.com/google.protobuf.Duration"}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Empty"}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": '
              '"type.googleapis.com/kinds.Tree", "only": {}}}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/kinds.Tree", "@type": "x"}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/kinds.Tree", "nothing": "x"}}'),
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Value", "value": null}}'),
    ('Names', '{"my-own \\"name\\"": 1, "Leading": 2, "UPPERCASE": 3, "digit12x": 4}'),
    ('Names', '{"chosen": 1, "_leading": 2, "UPPER_CASE": 3, "digit_1_2x": 4}'),
    ('Tree', '{"only":' * 100 + 'null' + '}' * 100),
]

# (type, JSON, what we answer: the same as this JSON, or part of the error): where the contract differs.
DIFFERENCES = [
    # A message is an object: Python takes whatever is empty.
    ('Scalars', '[]', 'expected an object'), ('Scalars', '""', 'expected an object'),
    # A field given twice is refused also where it comes once by each of its names.
    ('Scalars', '{"anInt32": 1, "an_int32": 2}', 'given twice'),
    ('Scalars', '{"anInt32": null, "an_int32": 2}', 'given twice'),
    # An integer may be written as any JSON number that is one, in quotes too, and is read exactly.
    ('Scalars', '{"anInt64": "1e2"}', '{"anInt64": 100}'),
    ('Scalars', '{"anInt64": 9007199254740993.0}', '{"anInt64": 9007199254740993}'),
    ('Scalars', '{"anInt64": 922337203685477580.7e1}', '{"anInt64": 9223372036854775807}'),
    ('Scalars', '{"anInt64": "007"}', 'is not an int64'),
    ('Scalars', '{"anInt64": "1_0"}', 'is not an int64'),
    ('Scalars', '{"anInt64": "0x10"}', 'is not an int64'),
    # The largest float in its shortest form, which is beyond it as a double.
    ('Scalars', '{"aFloat": 3.4028235e38}', '{"aFloat": 3.4028234663852886e38}'),
    # -0 is a double's minus zero, though Python reads an integer.
    ('Scalars', '{"aDouble": -0}', '{"aDouble": -0.0}'),
    # JSON has no NaN and Infinity without quotes; and Python's other spellings are none.
    ('Scalars', '{"aDouble": NaN}', 'not JSON'), ('Scalars', '{"aDouble": -Infinity}', 'not JSON'),
    ('Scalars', '{"aDouble": "inf"}', 'is not a double'), ('Scalars', '{"aDouble": " 1"}', 'is not a double'),
    # base64 holds nothing else.
    ('Scalars', '{"someBytes": "A*QID"}', 'is not base64'),
    ('Scalars', '{"someBytes": "A"}', 'is not base64'),
    # A number beyond a double is none, in a Value too.
    ('Known', '{"value": 1e400}', 'is not a double'),
    # A bool is no number.
    ('Scalars', '{"aColor": true}', 'found true'), ('Scalars', '{"aColor": 1.5}', 'is not a name or number'),
    # An Any's members are its message's, an empty message's too.
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}}',
     'has no such field'),
    # What follows the first '/' is the type's name (JSON types have slashes in theirs).
    ('Known', '{"any": {"@type": "a/b/kinds.Tree"}}', 'names no message type'),
    ('Known', '{"any": {"@type": "kinds.Tree"}}', 'names no message type'),
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s", "x": 1}}',
     '"value" only'),
    ('Known', '{"any": {"@type": "type.googleapis.com/google.protobuf.Duration"}}', 'needs "value"'),
    # Forms of time that RFC 3339 does not have.
    ('Known', '{"timestamp": "2006-1-2T15:04:05Z"}', 'is not a time'),
    ('Known', '{"timestamp": "2006-01-02T15:04:05.Z"}', 'is not a time'),
    ('Known', '{"duration": "1.s"}', 'is not a duration'),
    ('Known', '{"duration": "+1s"}', 'is not a duration'),
    ('Known', '{"duration": ".5s"}', 'is not a duration'),
    # Messages nest to protobuf's own limit of 100; every level of a Struct is three messages.
    ('Tree', '{"only":' * 101 + '{}' + '}' * 101, 'nested more than 100'),
    ('Known', '{"value":' + '[' * 51 + ']' * 51 + '}', 'nested more than 100'),
]

# (type, wire bytes, JSON): output where the contract differs from Python's, which raises.
OUTPUT = [
    ('Known', b'\x0a\x0b\x0a\x05a/x.Y\x12\x02\x01\x02', '{"any": {"@type": "a/x.Y", "value": "AQI="}}'),
    ('Known', b'\x0a\x09\x0a\x07a/x.Y.Z', '{"any": {"@type": "a/x.Y.Z", "value": ""}}'),
    ('Known', b'\x0a\x03\x12\x01\x05', '{"any": {"@type": "", "value": "BQ=="}}'),
    ('Known', b'\x32\x00', '{"value": null}'),
]


def both(ours, pool, name, text):
    want = new(pool, name)
    try:
        json_format.Parse(text, want, descriptor_pool=pool)
        want = canonical(want)
    except Exception:
        want = None
    code, got = ours.ask('J', name, text)
    return want, (got if code == 0 else None), got


def by_hand(ours, pool):
    for name, text in AGREED:
        want, got, said = both(ours, pool, 'kinds.' + name, text)
        if got is not None and want is not None and got != want:
            back = new(pool, 'kinds.' + name)
            back.ParseFromString(got)
            check(len(want) == len(got) and canonical(back) == want, text, got, want)
        else:
            check(got == want, text, said, want)


def differences(ours, pool):
    for name, text, answer in DIFFERENCES:
        code, got = ours.ask('J', 'kinds.' + name, text)
        if answer[0] == '{':
            want = new(pool, 'kinds.' + name)
            json_format.Parse(answer, want, descriptor_pool=pool)
            check(code == 0 and got == canonical(want), text, got, canonical(want))
        else:
            check(code != 0 and answer in got.decode(), text, code, got)
    for name, wire, answer in OUTPUT:
        code, got = ours.ask('P', 'kinds.' + name, wire)
        check(code == 0, wire, got)
        got = json.loads(got)
        for key, value in json.loads(answer).items():
            check(key in got and got[key] == value, wire, got, answer)


def texts(ours, pool):
    """Fields set from text, and entity keys, against the JSON of the same scalar."""
    rng = random.Random(SEED)
    scalars = pool.FindMessageTypeByName('kinds.Scalars')
    for field in scalars.fields:
        for _ in range(50):
            value = gen_scalar(rng, field)
            msg = new(pool, 'kinds.Scalars')
            setattr(msg, field.name, value)
            code, text = ours.ask('K', 'kinds.Scalars', field.name, msg.SerializeToString())
            check(code == 0, field.name, value, text)
            printed = json.loads(json_format.MessageToJson(msg, including_default_value_fields=True))
            printed = printed[field.json_name]
            if isinstance(printed, float):
                check(math.copysign(1, float(text)) == math.copysign(1, printed), text)
                check(float(text) == printed, text)
            else:
                check(text.decode() == (str(printed).lower() if isinstance(printed, bool) else str(printed)),
                      field.name, text, printed)
            code, wire = ours.ask('T', 'kinds.Scalars', rng.choice([field.name, field.json_name]), text)
            check(code == 0 and wire == canonical(msg), field.name, text, wire, canonical(msg))
    code, text = ours.ask('K', 'kinds.Scalars', 'a_string,an_int32,a_color', b'\x4a\x01x\x4a\x01y\x28\x05')
    check(text == b'y-5-COLOR_NONE', text)
    code, wire = ours.ask('T', 'kinds.All', 'tree.only.only.name', 'x')
    check(code == 0 and new(pool, 'kinds.All').FromString(wire).tree.only.only.name == 'x', wire)


def main():
    raw, pool = load_pool()
    ours = Ours()
    code, said = ours.ask('S', raw)
    assert code == 0, said
    rng = random.Random(SEED)
    checks = Checks(ours, pool, rng)
    tests = [
        ('cases by hand, where both agree', lambda: by_hand(ours, pool), 1),
        ('cases by hand, where the contract differs', lambda: differences(ours, pool), 1),
        ('scalars from and to text', lambda: texts(ours, pool), 1),
        ('wire to JSON', checks.wire_to_json, 1500),
        ('JSON to wire', checks.json_to_wire, 1500),
        ('wire to canonical wire', checks.wire_to_wire, 1500),
        ('broken wire', checks.broken_wire, 3000),
        ('broken JSON', checks.broken_json, 4000),
    ]
    print(f'# CAIRN_SEED={SEED} CAIRN_TEST_SCALE={SCALE}')
    print(f'1..{len(tests)}')
    for number, (name, run, count) in enumerate(tests, 1):
        count = count if count == 1 else max(1, int(count * SCALE))
        try:
            for i in range(count):
                run()
            print(f'ok {number} - {name}: {count}', flush=True)
        except (Failure, AssertionError) as e:
            print(f'not ok {number} - {name}')
            for line in str(e)[:3000].splitlines():
                print(f'# {line}', flush=True)
            if ours.process.poll() is not None:
                print('Bail out! the program under test has died')
                sys.exit(1)
    ours.process.stdin.close()
    status = ours.process.wait(ANSWER_MAX_S)
    if status:
        print(f'Bail out! the program under test ended with {status}')


main()
