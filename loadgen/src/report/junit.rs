//! A run's verdict as JUnit's XML, for those who have builds pass or fail by it. Pure.
//!
//! One suite; a case for each threshold, one for each kind of violation that was found, and `verdict`, so that a run fails
//! in a build where it fails here.

use std::fmt;

use crate::report::{Report, Verdict};

/// One case of the suite.
struct TestCase {
    name: String,
    /// What is wrong, in a sentence and at length; `None`: it passed.
    failure: Option<(String, String)>,
}

/// The suite of a run.
#[must_use]
pub(crate) fn xml(report: &Report) -> String {
    let cases = cases(report);
    let tests = cases.len();
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let cases: String = cases.iter().map(TestCase::to_string).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites><testsuite name=\"roomcast-loadgen\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" \
         time=\"{}\">\n{cases}</testsuite></testsuites>\n",
        report.seconds
    )
}

impl fmt::Display for TestCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<testcase classname=\"roomcast-loadgen\" name=\"{}\"", escaped(&self.name))?;
        let Some((message, at_length)) = &self.failure else { return f.write_str("/>\n") };
        let message = escaped(message);
        let at_length = escaped(at_length);
        writeln!(f, "><failure message=\"{message}\">{at_length}</failure></testcase>")
    }
}

fn cases(report: &Report) -> Vec<TestCase> {
    let verdict = report.verdict_words();
    let failed = (report.verdict != Verdict::Ok).then(|| (verdict, report.to_string()));
    let mut cases = vec![TestCase { name: "verdict".to_owned(), failure: failed }];
    cases.extend(report.thresholds.iter().map(|judged| TestCase {
        name: judged.condition.clone(),
        failure: (!judged.holds).then(|| (format!("found {}", judged.found_text), judged.to_string())),
    }));
    cases.extend(report.violations.found().map(|(kind, found)| TestCase {
        name: format!("violation {kind}"),
        failure: Some((format!("{} times", found.count), found.examples.join("\n"))),
    }));
    cases
}

/// A text as XML shows it; what XML can't hold at all is shown as a replacement.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push('\t'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Kind, Violations};
    use crate::report::tests::made_up;
    use crate::scenario::thresholds::parse_all;

    #[test]
    fn a_good_run_has_a_case_for_each_threshold_and_one_for_the_verdict() {
        let suite = xml(&made_up().held_to(&parse_all("p99<1s,loss=0").unwrap()));
        assert!(suite.contains("tests=\"3\" failures=\"0\""), "{suite}");
        for name in ["verdict", "p99&lt;1s", "loss=0"] {
            assert!(suite.contains(&format!("name=\"{name}\"/>")), "{name}: {suite}");
        }
    }

    #[test]
    fn what_failed_says_why_and_nothing_in_it_is_markup() {
        let mut report = made_up();
        let mut violations = Violations::default();
        violations.add(Kind::Lost, 7, || "room 1: <chat> \"5\" & more\u{0}".to_owned());
        report.violations = violations;
        report.verdict = Verdict::Violations;
        let suite = xml(&report.held_to(&parse_all("p99<1ms").unwrap()));
        assert!(suite.contains("tests=\"3\" failures=\"3\""), "{suite}");
        assert!(suite.contains("name=\"p99&lt;1ms\"><failure message=\"found 120 ms\">"), "{suite}");
        let violation = "name=\"violation lost\"><failure message=\"7 times\">\
                         room 1: &lt;chat&gt; &quot;5&quot; &amp; more\u{fffd}</failure>";
        assert!(suite.contains(violation), "{suite}");
        assert!(!suite.contains("<chat>"));
    }
}
