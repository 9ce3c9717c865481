"""What the recorder keeps, and what a test expects to have been kept: the same objects serve for both."""

from google.protobuf import text_format


class Record:
    """`stream` is the recorder's number of the stream, `at` the time since it began, `taken` whether an
    expectation was met by it. None of them is compared."""

    stream = None
    at = 0.0
    taken = False

    def matches(self, seen):
        return type(self) is type(seen) and self._same(seen)

    def _same(self, seen):
        return True

    def __repr__(self):
        return "%s()" % type(self).__name__


class Open(Record):
    """The proxy opened a stream."""

    def __init__(self, path, headers=()):
        self.path, self.headers = path, list(headers)

    def _same(self, seen):
        return self.path == seen.path

    def header(self, name):
        """The values of one header, in order."""
        return [value for key, value in self.headers if key == name]

    def __repr__(self):
        return "Open(%s)" % self.path


class _Message(Record):
    def __init__(self, message=None):
        self.message = message

    def _same(self, seen):
        if self.message is None:
            return True
        if type(self.message) is not type(seen.message):
            return False
        if isinstance(self.message, bytes):
            return self.message == seen.message
        # Serialised, so that unknown fields and the bytes of every payload are compared too.
        return (self.message.SerializeToString(deterministic=True)
                == seen.message.SerializeToString(deterministic=True))

    def __repr__(self):
        if self.message is None:
            text = "any message"
        elif isinstance(self.message, bytes):
            text = "raw %s" % self.message.hex()
        else:
            body = text_format.MessageToString(self.message, as_one_line=True, print_unknown_fields=True)
            text = "%s{%s}" % (self.message.DESCRIPTOR.name, body)
        return "%s(%s)" % (type(self).__name__, text)


class ToFunction(_Message):
    """A message of the proxy. Expected without an argument: any one message."""


class FromFunction(_Message):
    """A message of the function. Expected without an argument: any one message."""


class HalfClose(Record):
    """The proxy ended its side of the stream in good order."""


class End(Record):
    """The function ended the stream with a status (None: it sent none). Expected with `message` None: any
    text."""

    def __init__(self, code=0, message=None):
        self.code, self.message = code, message

    def _same(self, seen):
        return self.code == seen.code and (self.message is None or self.message == seen.message)

    def __repr__(self):
        return "End(%s%s)" % (self.code, ", %r" % self.message if self.message else "")


class Reset(Record):
    """RST_STREAM by "proxy" or "function". NO_ERROR of a function that has ended the stream is not recorded:
    that is how a gRPC server says that it wants no more messages after its end."""

    def __init__(self, by, code):
        self.by, self.code = by, int(code)

    def _same(self, seen):
        return (self.by, self.code) == (seen.by, seen.code)

    def __repr__(self):
        return "Reset(by %s, %d)" % (self.by, self.code)


class Broken(Record):
    """The connection was lost while the stream was open; `by`: whose side broke, "proxy" or "function"."""

    def __init__(self, by):
        self.by = by

    def _same(self, seen):
        return self.by == seen.by

    def __repr__(self):
        return "Broken(by %s)" % self.by


class Violation(Record):
    """Somebody did not keep to HTTP/2 or to gRPC's framing. No expectation is met by one."""

    def __init__(self, by, text):
        self.by, self.text = by, text

    def matches(self, seen):
        return False

    def __repr__(self):
        return "Violation(by %s: %s)" % (self.by, self.text)
