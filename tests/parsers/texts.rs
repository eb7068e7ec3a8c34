//! Payloads to be judged: texts that have broken a parser somewhere, and random ones.

/// Texts that some parser has refused, read differently, or overflowed on.
pub(crate) const KNOWN: &[&[u8]] = &[
    br#""\ud83d""#,
    br#""\ude00""#,
    br#""\ud83d\ud83d""#,
    br#""\ud83d\ude00""#,
    br#"{"\ud83d":1}"#,
    br#"{"a":1,"a":2}"#,
    br#"{"a":1,"\u0061":2}"#,
    br#"{"":1,"":2}"#,
    br#"{"__proto__":1,"constructor":{"prototype":2}}"#,
    br#"{"@type":"java.lang.Object"}"#,
    br#""\u0000\u001f\u007f""#,
    b"\"\x7f\xc2\x80\xe2\x80\xa8\xe2\x80\xa9\xef\xbb\xbf\"",
    br#""\ufffe""#,
    b"\"\xef\xbf\xbf\"",
    b"1e400",
    b"-1e400",
    b"1e-400",
    b"0e999999999999",
    b"1.7976931348623157e308",
    b"1.7976931348623159e308",
    b"5e-324",
    b"-0",
    b"-0.0",
    b"9007199254740993",
    b"18446744073709551616",
    b"123456789012345678901234567890123456789012345678901234567890",
    b"0.1000000000000000055511151231257827021181583404541015625",
    b" \t\r\n null \t\r\n ",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
];

/// Random JSON, with faults strewn in.
pub(crate) struct Texts(pub(crate) fastrand::Rng);

impl Texts {
    /// A value. About half of the values have a fault somewhere.
    pub(crate) fn value(&mut self) -> String {
        self.nested(0)
    }

    fn nested(&mut self, depth: u32) -> String {
        let kinds = if depth > 3 { 4 } else { 6 };
        match self.0.u32(..kinds) {
            0 => (*self.0.choice(&["true", "false", "null"]).unwrap()).to_owned(),
            1 | 2 => self.string(),
            3 => self.number(),
            4 => {
                let values: Vec<String> = (0..self.0.u32(..4)).map(|_| self.nested(depth + 1)).collect();
                format!("[{}{}]", self.space(), values.join(", "))
            }
            _ => {
                let mut members = Vec::new();
                for n in 0..self.0.u32(..4) {
                    // Most names are different, and a few come again in another spelling.
                    let name = match self.0.u32(..12) {
                        0 => "\"a\"".to_owned(),
                        1 => "\"\\u0061\"".to_owned(),
                        2 => self.string(),
                        _ => format!("\"n{n}\""),
                    };
                    members.push(format!("{name}{}:{}", self.space(), self.nested(depth + 1)));
                }
                format!("{{{}{}}}", members.join(","), self.space())
            }
        }
    }

    fn space(&mut self) -> &'static str {
        self.0.choice(&["", "", "", " ", "\t", "\r\n"]).unwrap()
    }

    fn string(&mut self) -> String {
        let mut text = String::from('"');
        for _ in 0..self.0.u32(..6) {
            match self.0.u32(..24) {
                0 => text += "\\ud83d\\ude00",
                1 => text += "\\ud83d",
                2 => text += "\\udc01",
                3 => text += "\u{1f600}",
                4 => text += self.0.choice(&["\\n", "\\t", "\\\"", "\\\\", "\\/", "\\b", "\\f"]).unwrap(),
                5 => text += &format!("\\u{:04x}", self.0.u16(..0xd800)),
                6 => text.extend(char::from_u32(self.0.u32(..0x11_0000))),
                7 => text += "\u{2028}\u{feff}\0".trim_end_matches('\0'),
                _ => text.push(self.0.alphanumeric()),
            }
        }
        // Raw control characters and quotes of the random characters would end the string.
        let inner: String = text[1..].chars().filter(|c| *c >= ' ').collect();
        format!("\"{}\"", balanced(&inner))
    }

    fn number(&mut self) -> String {
        let sign = self.0.choice(&["", "-"]).unwrap();
        match self.0.u32(..16) {
            0 => format!("{sign}{}", "9".repeat(self.0.usize(1..330))),
            1 => format!("{sign}0.{}", "7".repeat(self.0.usize(1..1_100))),
            2 => format!("{sign}{}e{}", self.0.u32(..10), self.0.i32(-400..400)),
            3 => format!("{sign}{}.{}E+{}", self.0.u32(..), self.0.u32(..), self.0.u32(..320)),
            4..8 => format!("{sign}{}", self.0.u64(..)),
            8..12 => format!("{sign}{}.{}", self.0.u32(..), self.0.u32(..)),
            _ => format!("{sign}{}", self.0.u32(..100)),
        }
    }
}

/// The text without a quote, or a backslash that begins no escape.
fn balanced(text: &str) -> String {
    let mut balanced = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => {}
            '\\' => match rest.next() {
                Some(escaped) if "\"\\/bfnrtu".contains(escaped) => balanced.extend([c, escaped]),
                _ => {}
            },
            _ => balanced.push(c),
        }
    }
    balanced
}
