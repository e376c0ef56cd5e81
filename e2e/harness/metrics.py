"""A strict reader of the Prometheus text format (0.0.4).

It refuses what a scraper might let pass: a sample without HELP and TYPE before
it, a family in two pieces, a series twice, a counter without _total, a
histogram whose buckets do not add up.
"""

import math
import re

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|\Z)')
_TYPES = ("counter", "gauge", "histogram", "summary", "untyped")

Labels = frozenset[tuple[str, str]]


class Metrics:
    """One scrape."""

    def __init__(self):
        self.types: dict[str, str] = {}
        self.samples: dict[str, dict[Labels, float]] = {}

    def series(self, name: str, **labels: str) -> dict[Labels, float]:
        """Samples of this name that have these labels."""
        want = set(labels.items())
        return {k: v for k, v in self.samples.get(name, {}).items() if want <= k}

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.series(name, **labels).values())

    def value(self, name: str, **labels: str) -> float:
        """The only sample of this name with these labels."""
        found = self.series(name, **labels)
        if len(found) != 1:
            raise AssertionError("%s%r: %d series, want 1" % (name, labels, len(found)))
        return next(iter(found.values()))

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label."""
        return {dict(k)[label] for k in self.samples.get(name, {}) if label in dict(k)}


def parse(text: str) -> Metrics:
    m = Metrics()
    if not text.endswith("\n"):
        raise AssertionError("the last line has no end")
    helped: set[str] = set()
    family = ""
    for number, line in enumerate(text.splitlines(), 1):
        def check(ok: bool, what: str) -> None:
            if not ok:
                raise AssertionError("line %d: %s: %r" % (number, what, line))

        if line.startswith("# HELP "):
            name, _, help_text = line[7:].partition(" ")
            check(bool(_NAME.match(name)), "bad name")
            check(name not in helped, "second HELP")
            check(help_text.strip() != "", "empty HELP")
            helped.add(name)
            family = name
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            check(name == family and name in helped, "TYPE without its HELP before it")
            check(name not in m.types, "second TYPE")
            check(kind in _TYPES, "unknown type")
            check((kind == "counter") == name.endswith("_total"), "counters, and only they, end in _total")
            m.types[name] = kind
        else:
            check(line != "" and not line.startswith("#"), "unexpected line")
            match = _SAMPLE.match(line)
            check(match is not None, "not a sample")
            name, label_text, value = match.groups()
            check(_family(m, name) == family, "sample outside its family %s" % family)
            labels = _labels(label_text or "", check)
            series = m.samples.setdefault(name, {})
            check(labels not in series, "series twice")
            series[labels] = float(value.replace("Inf", "inf").replace("NaN", "nan"))
    for name, kind in m.types.items():
        if kind == "histogram":
            _check_histogram(m, name)
        if kind == "counter":
            for labels, value in m.samples.get(name, {}).items():
                if value < 0 or math.isnan(value):
                    raise AssertionError("%s%s is %s" % (name, dict(labels), value))
    return m


def _family(m: Metrics, sample: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        base = sample.removesuffix(suffix)
        if base != sample and m.types.get(base) in ("histogram", "summary"):
            return base
    return sample


def _labels(text: str, check) -> Labels:
    labels, position = [], 0
    while position < len(text):
        match = _LABEL.match(text, position)
        check(match is not None, "bad labels")
        unescaped = re.sub(r'\\(["\\n])', lambda e: "\n" if e[1] == "n" else e[1], match[2])
        labels.append((match[1], unescaped))
        position = match.end()
    check(len({n for n, _ in labels}) == len(labels), "label twice")
    return frozenset(labels)


def _check_histogram(m: Metrics, name: str) -> None:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in m.samples.get(name + "_bucket", {}).items():
        bound = float(dict(labels)["le"].replace("Inf", "inf"))
        rest = frozenset(kv for kv in labels if kv[0] != "le")
        groups.setdefault(rest, []).append((bound, value))
    counts = m.samples.get(name + "_count", {})
    if set(groups) != set(counts) or set(groups) != set(m.samples.get(name + "_sum", {})):
        raise AssertionError("%s: buckets, sum and count have different series" % name)
    for labels, buckets in groups.items():
        buckets.sort()
        values = [v for _, v in buckets]
        if values != sorted(values):
            raise AssertionError("%s%s: buckets are not cumulative: %s" % (name, dict(labels), buckets))
        if buckets[-1] != (math.inf, counts[labels]):
            raise AssertionError("%s%s: the +Inf bucket is not the count" % (name, dict(labels)))
