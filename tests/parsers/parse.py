"""Judges JSON texts: one in base64 a line, '1' or '0' a line."""
import base64
import json
import math
import sys


def unique(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name twice")
    return members


def finite(spelt):
    number = float(spelt)
    if not math.isfinite(number):
        raise ValueError("no double holds " + spelt[:40])
    return number


def whole(spelt):
    # Fails past the largest double, as each use in arithmetic with floats does.
    float(int(spelt))
    return int(spelt)


def refuse(name):
    raise ValueError(name)


def judge(text):
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_int=whole, parse_constant=refuse
        )
        # Half of a surrogate pair parses, and fails once the text leaves the program.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return "1"
    except (ValueError, OverflowError, RecursionError):
        return "0"


for line in sys.stdin:
    print(judge(base64.b64decode(line)))
