//! I-JSON (RFC 7493): the check of every JSON text that the engine passes on, or acts on, unread.
//!
//! One text stands inside the frames of all devices of a room. Parsers differ in the texts that they refuse.
//! One refused text costs a device the whole frame, other messages included. So the check refuses each text
//! that a common strict parser refuses:
//!
//! | text | refused by |
//! |---|---|
//! | half of a surrogate pair, escaped or not | Rust, Go 2, Python on encoding, Java on encoding (§2.1) |
//! | a noncharacter such as U+FFFE | I-JSON (§2.1) |
//! | a name twice in one object | Go 2, Java (`org.json`), Rust (structs), Python (hooks) (§2.3) |
//! | a number above 1.8 × 10³⁰⁸, the largest double | Go, Rust, Swift (§2.2) |
//! | a number longer than 1 000 bytes | Java (Jackson's default limit) |
//! | a byte order mark in front | all of them (RFC 8259 §8.1) |
//! | a control character in a string | all of them (RFC 8259 §7) |
//!
//! Numbers that a double only holds rounded (`0.1`, a 64-bit id) pass. Every parser takes them, and RFC 7493
//! §2.2 says no more than SHOULD NOT.
//!
//! Pure and without recursion: no text overflows the stack. The text is read once; only names are kept.

use std::borrow::Cow;
use std::fmt;

use crate::limits::{JSON_NUMBER_BYTES_MAX, PAYLOAD_DEPTH_MAX};

/// First place of a text that is not I-JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Offset of the place, in bytes from the start of the text.
    pub at: usize,
    /// Reason for the refusal.
    pub kind: FaultKind,
    /// Members that lead to the place: `user.tags[2]`. Empty: the value at the top.
    pub path: String,
}

/// Reason why a text is not I-JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text begins with U+FEFF.
    ByteOrderMark,
    /// The text is not exactly one JSON value.
    Syntax,
    /// A string holds an unescaped control character.
    ControlCharacter,
    /// An escape names half of a surrogate pair.
    LoneSurrogate,
    /// A string holds a code point that is never a character, such as U+FFFE.
    Noncharacter,
    /// An object has a name twice.
    RepeatedName,
    /// A number is beyond the largest double.
    NumberTooLarge,
    /// A number is longer than [`JSON_NUMBER_BYTES_MAX`].
    NumberTooLong,
    /// The text nests deeper than [`PAYLOAD_DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("bytes outside UTF-8 (RFC 7493 §2.1)"),
            Self::ByteOrderMark => f.write_str("a byte order mark (RFC 8259 §8.1)"),
            Self::Syntax => f.write_str("not one JSON value (RFC 8259 §2)"),
            Self::ControlCharacter => f.write_str("a control character in a string (RFC 8259 §7)"),
            Self::LoneSurrogate => f.write_str("half of a surrogate pair (RFC 7493 §2.1)"),
            Self::Noncharacter => f.write_str("a noncharacter (RFC 7493 §2.1)"),
            Self::RepeatedName => f.write_str("a name that its object has already (RFC 7493 §2.3)"),
            Self::NumberTooLarge => f.write_str("a number that no double holds (RFC 7493 §2.2)"),
            Self::NumberTooLong => write!(f, "a number of more than {JSON_NUMBER_BYTES_MAX} bytes"),
            Self::TooDeep => write!(f, "more than {PAYLOAD_DEPTH_MAX} levels"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}", self.at)?;
        if !self.path.is_empty() {
            write!(f, ", in {}", self.path)?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// Checks `text` to be I-JSON: exactly one value, nested at most [`PAYLOAD_DEPTH_MAX`] deep.
///
/// The cost is one walk over the text, and n log n comparisons for an object of n names.
///
/// # Errors
/// The first [`Fault`]. A repeated name is found at the end of its object.
pub fn check(text: &[u8]) -> Result<(), Fault> {
    let fault = |at, kind| Fault { at, kind, path: String::new() };
    let text = str::from_utf8(text).map_err(|error| fault(error.valid_up_to(), FaultKind::NotUtf8))?;
    if text.starts_with('\u{feff}') {
        return Err(fault(0, FaultKind::ByteOrderMark));
    }
    let mut walk = Walk { text, at: 0, open: Vec::new(), names: Vec::new() };
    walk.run().map_err(|kind| walk.fault(kind))
}

/// One walk over a text.
struct Walk<'a> {
    text: &'a str,
    /// Offset of the next byte. After a fault: its place.
    at: usize,
    /// Open containers, the outermost first.
    open: Vec<Open>,
    /// Names of all open objects, in the order of the text.
    names: Vec<Name>,
}

/// An open container.
struct Open {
    is_object: bool,
    /// The first name of an object, as an index of [`Walk::names`].
    first_name: usize,
    /// Values of an array before the present one.
    index: usize,
}

/// A name of an object, as an area of the text without the quotes.
#[derive(Clone, Copy)]
struct Name {
    start: usize,
    end: usize,
    has_escapes: bool,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), FaultKind> {
        loop {
            // A value begins here.
            match self.next_visible() {
                Some(b'{') => {
                    self.begin(true)?;
                    if self.next_visible() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                    self.end()?;
                }
                Some(b'[') => {
                    self.begin(false)?;
                    if self.next_visible() != Some(b']') {
                        continue;
                    }
                    self.end()?;
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => self.word()?,
            }
            if !self.go_on()? {
                return Ok(());
            }
        }
    }

    /// Walks from the end of a value to the begin of the next. False: the text is over.
    fn go_on(&mut self) -> Result<bool, FaultKind> {
        loop {
            let next = self.next_visible();
            let Some(open) = self.open.last_mut() else {
                return if next.is_none() { Ok(false) } else { Err(FaultKind::Syntax) };
            };
            match next {
                Some(b',') => {
                    open.index += 1;
                    let is_object = open.is_object;
                    self.at += 1;
                    if is_object {
                        self.next_visible();
                        self.name()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if open.is_object => self.end()?,
                Some(b']') if !open.is_object => self.end()?,
                _ => return Err(FaultKind::Syntax),
            }
        }
    }

    /// The next byte that is no white space, not taken.
    fn next_visible(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte(0) {
            self.at += 1;
        }
        self.byte(0)
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn begin(&mut self, is_object: bool) -> Result<(), FaultKind> {
        if self.open.len() == PAYLOAD_DEPTH_MAX {
            return Err(FaultKind::TooDeep);
        }
        self.at += 1;
        self.open.push(Open { is_object, first_name: self.names.len(), index: 0 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), FaultKind> {
        let first_name = self.open.last().map_or(0, |open| open.first_name);
        if let Some(repeated) = repeated(self.text, &self.names[first_name..]) {
            // The path leads to the repeated name, not to the last name of the object.
            self.at = repeated.start;
            self.names.truncate(first_name);
            self.names.push(repeated);
            return Err(FaultKind::RepeatedName);
        }
        self.names.truncate(first_name);
        self.open.pop();
        self.at += 1;
        Ok(())
    }

    /// Takes a name and its colon.
    fn name(&mut self) -> Result<(), FaultKind> {
        if self.byte(0) != Some(b'"') {
            return Err(FaultKind::Syntax);
        }
        let name = self.string()?;
        self.names.push(name);
        if self.next_visible() != Some(b':') {
            return Err(FaultKind::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes a string. The next byte is its quote.
    fn string(&mut self) -> Result<Name, FaultKind> {
        let start = self.at + 1;
        let mut has_escapes = false;
        self.at = start;
        loop {
            // Nearly all bytes are plain, so the table decides alone for them.
            while self.byte(0).is_some_and(|byte| IS_PLAIN[usize::from(byte)]) {
                self.at += 1;
            }
            match self.byte(0) {
                Some(b'"') => {
                    let name = Name { start, end: self.at, has_escapes };
                    self.at += 1;
                    return Ok(name);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                // U+FDD0 begins with EF; so does every plane's end with EF or a higher byte.
                Some(0xef..) => {
                    let character = self.text[self.at..].chars().next().unwrap_or_default();
                    if is_noncharacter(u32::from(character)) {
                        return Err(FaultKind::Noncharacter);
                    }
                    self.at += character.len_utf8();
                }
                Some(_) => return Err(FaultKind::ControlCharacter),
                None => return Err(FaultKind::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Result<(), FaultKind> {
        match self.byte(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit(2)?;
                let (code, bytes) = match unit {
                    0xd800..=0xdbff => {
                        // JavaScript's `slice` cuts an emoji in half, and JSON.stringify escapes the half.
                        if self.byte(6) != Some(b'\\') || self.byte(7) != Some(b'u') {
                            return Err(FaultKind::LoneSurrogate);
                        }
                        let low = self.unit(8)?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(FaultKind::LoneSurrogate);
                        }
                        (0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), 12)
                    }
                    0xdc00..=0xdfff => return Err(FaultKind::LoneSurrogate),
                    _ => (unit, 6),
                };
                if is_noncharacter(code) {
                    return Err(FaultKind::Noncharacter);
                }
                self.at += bytes;
            }
            _ => return Err(FaultKind::Syntax),
        }
        Ok(())
    }

    /// The four hexadecimal digits `ahead` of here.
    fn unit(&self, ahead: usize) -> Result<u32, FaultKind> {
        (ahead..ahead + 4).try_fold(0, |unit, ahead| {
            let digit = self.byte(ahead).and_then(|byte| char::from(byte).to_digit(16));
            Ok(unit * 16 + digit.ok_or(FaultKind::Syntax)?)
        })
    }

    /// Takes a number. The next byte is its sign or first digit.
    fn number(&mut self) -> Result<(), FaultKind> {
        let start = self.at;
        if self.byte(0) == Some(b'-') {
            self.at += 1;
        }
        let has_leading_zero = self.byte(0) == Some(b'0');
        let whole = self.digits()?;
        if has_leading_zero && whole > 1 {
            return Err(FaultKind::Syntax);
        }
        if self.byte(0) == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut has_exponent = false;
        if let Some(b'e' | b'E') = self.byte(0) {
            has_exponent = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte(0) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let fault = if text.len() > JSON_NUMBER_BYTES_MAX {
            Some(FaultKind::NumberTooLong)
        } else if (has_exponent || whole > DOUBLE_DIGITS) && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            Some(FaultKind::NumberTooLarge)
        } else {
            None
        };
        fault.map_or(Ok(()), |kind| {
            self.at = start;
            Err(kind)
        })
    }

    /// Takes digits, at least one, and counts them.
    fn digits(&mut self) -> Result<usize, FaultKind> {
        let start = self.at;
        while self.byte(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(FaultKind::Syntax) } else { Ok(self.at - start) }
    }

    fn word(&mut self) -> Result<(), FaultKind> {
        let rest = &self.text.as_bytes()[self.at..];
        let word = [&b"true"[..], b"false", b"null"].into_iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or(FaultKind::Syntax)?.len();
        Ok(())
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        let mut path = String::new();
        let ends = self.open.iter().skip(1).map(|open| open.first_name).chain([self.names.len()]);
        for (open, names_end) in self.open.iter().zip(ends) {
            if path.len() >= PATH_BYTES_SHOWN {
                break;
            }
            if !open.is_object {
                path += &format!("[{}]", open.index);
            } else if let Some(name) = self.names[open.first_name..names_end].last() {
                let shown = name.text(self.text).chars().take(NAME_CHARS_SHOWN).collect::<String>();
                path += if path.is_empty() { "" } else { "." };
                path += &shown;
            }
        }
        Fault { at: self.at, kind, path }
    }
}

impl Name {
    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.has_escapes {
            return Cow::Borrowed(&text[self.start..self.end]);
        }
        // The walk has checked the escapes, so the reading can't fail.
        let quoted = &text[self.start - 1..=self.end];
        serde_json::from_str(quoted).map_or(Cow::Borrowed(quoted), Cow::Owned)
    }
}

/// The first name of an object that stands there for the second time.
fn repeated(text: &str, names: &[Name]) -> Option<Name> {
    if names.len() < 2 {
        return None;
    }
    // Few names are compared each with each, without an allocation for names without escapes.
    if names.len() <= NAMES_COMPARED_MAX {
        return names.iter().enumerate().find_map(|(at, name)| {
            let given = name.text(text);
            names[..at].iter().any(|other| other.text(text) == given).then_some(*name)
        });
    }
    // Thousands of names fit a payload: comparing each with each would take milliseconds.
    let mut sorted: Vec<(Cow<'_, str>, usize)> =
        names.iter().enumerate().map(|(at, name)| (name.text(text), at)).collect();
    sorted.sort_unstable();
    let again = sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1).min();
    again.map(|at| names[at])
}

/// True for a code point that Unicode keeps from ever being a character (Unicode §23.7).
fn is_noncharacter(code: u32) -> bool {
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// Bytes of a string without a meaning of their own: all but the quote, the backslash, control characters,
/// and the first bytes of characters from U+F000 on.
const IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0xef {
        plain[byte] = true;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// Digits before the point of a number that a double surely holds, without an exponent.
const DOUBLE_DIGITS: usize = 308;
/// Names of an object that are compared each with each.
const NAMES_COMPARED_MAX: usize = 16;
/// Characters of a name in a path. A hostile name would fill the answer otherwise.
const NAME_CHARS_SHOWN: usize = 64;
/// Bytes of a path after which the path is cut.
const PATH_BYTES_SHOWN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> Option<(usize, FaultKind)> {
        check(text).err().map(|fault| (fault.at, fault.kind))
    }

    #[test]
    fn a_value_of_each_sort_passes() {
        for text in [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "-0.5e-7",
            "1E+3",
            "12345678901234567890",
            "1.7976931348623157e308",
            "1e-400",
            "\"\"",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00é€😀\u{2028}\\u0000\"",
            "[]",
            "[ ]",
            "{}",
            "{ }",
            "[1,[2,{\"a\":[]}],\"x\"]",
            "\t{\r\n\"a\" : { \"a\" : 1 } , \"b\" : [ {\"a\":1}, {\"a\":1} ] }",
        ] {
            assert_eq!(fault(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn each_fault_has_its_place() {
        use FaultKind::*;
        for (text, at, kind) in [
            (&b""[..], 0, Syntax),
            (b"1 2", 2, Syntax),
            (b"01", 2, Syntax),
            (b"-", 1, Syntax),
            (b"1.", 2, Syntax),
            (b"1e", 2, Syntax),
            (b"+1", 0, Syntax),
            (b"nul", 0, Syntax),
            (b"NaN", 0, Syntax),
            (b"'a'", 0, Syntax),
            (b"[1,]", 3, Syntax),
            (b"[1}", 2, Syntax),
            (b"{\"a\":1]", 6, Syntax),
            (b"{\"a\" 1}", 5, Syntax),
            (b"{\"a\":1,}", 7, Syntax),
            (b"{a:1}", 1, Syntax),
            (b"[", 1, Syntax),
            (b"]", 0, Syntax),
            (b"\"a", 2, Syntax),
            (b"\"\\x\"", 1, Syntax),
            (b"\"\\u12g4\"", 1, Syntax),
            (b"\xff", 0, NotUtf8),
            (b"\"\xed\xa0\xbd\"", 1, NotUtf8),
            (b"\xef\xbb\xbf1", 0, ByteOrderMark),
            (b"\"a\x01\"", 2, ControlCharacter),
            (b"\"a\nb\"", 2, ControlCharacter),
            (b"\"a\\ud83d\"", 2, LoneSurrogate),
            (b"\"\\ude00\"", 1, LoneSurrogate),
            (b"\"\\ud83d\\ud83d\"", 1, LoneSurrogate),
            (b"\"\\ud83d\\n\"", 1, LoneSurrogate),
            (b"{\"\\ud83d\":1}", 2, LoneSurrogate),
            (b"\"\\ufffe\"", 1, Noncharacter),
            (b"\"\\uFDD0\"", 1, Noncharacter),
            (b"\"\\ud83f\\udfff\"", 1, Noncharacter),
            ("\"x\u{ffff}\"".as_bytes(), 2, Noncharacter),
            ("\"\u{1fffe}\"".as_bytes(), 1, Noncharacter),
            (b"[1e309]", 1, NumberTooLarge),
            (b"-1e999999999999", 0, NumberTooLarge),
            (b"{\"a\":1,\"b\":2,\"a\":3}", 14, RepeatedName),
            (b"{\"a\":1,\"\\u0061\":2}", 8, RepeatedName),
            (b"[{},{\"\":1,\"\":1}]", 11, RepeatedName),
        ] {
            assert_eq!(fault(text), Some((at, kind)), "{}", text.escape_ascii());
        }
        let long = format!("0.{}", "1".repeat(JSON_NUMBER_BYTES_MAX));
        assert_eq!(fault(long.as_bytes()), Some((0, NumberTooLong)));
        assert_eq!(fault("9".repeat(400).as_bytes()), Some((0, NumberTooLarge)));
    }

    #[test]
    fn the_path_leads_to_the_place() {
        for (text, said) in [
            (
                "{\"user\":{\"tags\":[1,2,\"\\ud83d\"]}}",
                "at byte 22, in user.tags[2]: half of a surrogate pair",
            ),
            ("[[1e999]]", "at byte 2, in [0][0]: a number that no double holds"),
            ("{\"a\":{\"b\":1,\"b\":2,\"c\":3}}", "at byte 13, in a.b: a name that its object has already"),
            ("\"\\ud83d\"", "at byte 1: half of a surrogate pair"),
        ] {
            let fault = check(text.as_bytes()).unwrap_err().to_string();
            assert!(fault.starts_with(said), "{fault}");
        }
    }

    #[test]
    fn depth_and_names_are_bounded_by_the_text_alone() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(fault(nested(PAYLOAD_DEPTH_MAX).as_bytes()), None);
        let deep = (PAYLOAD_DEPTH_MAX, FaultKind::TooDeep);
        assert_eq!(fault(nested(PAYLOAD_DEPTH_MAX + 1).as_bytes()), Some(deep));
        assert_eq!(fault(nested(100_000).as_bytes()), Some(deep));
        let names: Vec<String> = (0..3000).map(|n| format!("\"{n}\":0")).collect();
        assert_eq!(fault(format!("{{{}}}", names.join(",")).as_bytes()), None);
        let repeated = format!("{{{},\"7\":0,\"8\":1}}", names.join(","));
        let at = repeated.len() - "7\":0,\"8\":1}".len();
        assert_eq!(fault(repeated.as_bytes()), Some((at, FaultKind::RepeatedName)));
    }

    /// serde refuses repeated names of structs alone, so the names of the random texts are all different.
    #[test]
    fn the_check_takes_what_serde_takes() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let parts = [
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "d83d", "de00", "1", "e", "-", ".", "0", " ",
            "true",
        ];
        let mut both = 0;
        for _ in 0..60_000 {
            let text: String = (0..random.usize(1..9)).map(|_| *random.choice(&parts).unwrap()).collect();
            let ours = check(text.as_bytes());
            let serdes = serde_json::from_str::<serde_json::Value>(&text);
            both += u32::from(serdes.is_ok());
            let is_repeated = ours.as_ref().is_err_and(|fault| fault.kind == FaultKind::RepeatedName);
            assert!(ours.is_ok() == serdes.is_ok() || is_repeated, "seed {seed}: {text}: {ours:?}");
        }
        assert!(both > 500, "{both} of the random texts are JSON");
    }
}
