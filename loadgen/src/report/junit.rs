//! The verdict of a run as JUnit's XML, for builds that pass or fail by the verdict. Pure.
//!
//! The suite has a case for each threshold, a case for each kind of violation found, and the case `verdict`.
//! A run without a good verdict fails in a build too.

use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite, XmlString};

use crate::report::{Report, Verdict};

const NAME: &str = "roomcast-loadgen";

pub(crate) fn xml(report: &Report) -> String {
    let took = Duration::from_secs_f64(report.seconds);
    let mut suite = TestSuite::new(NAME);
    suite.set_time(took).add_test_case(match report.verdict {
        Verdict::Ok => passed("verdict"),
        _ => failed("verdict", &report.verdict_words(), &report.to_string()),
    });
    suite.add_test_cases(report.thresholds.iter().map(|judged| match judged.holds {
        true => passed(&judged.condition),
        false => failed(&judged.condition, &format!("found {}", judged.found_text), &judged.to_string()),
    }));
    suite.add_test_cases(report.violations.found().map(|(kind, found)| {
        failed(&format!("violation {kind}"), &format!("{} times", found.count), &found.examples.join("\n"))
    }));
    let mut suites = quick_junit::Report::new(NAME);
    suites.set_time(took).add_test_suite(suite);
    suites.to_string().expect("writing to memory can't fail")
}

fn passed(name: &str) -> TestCase {
    case(name, TestCaseStatus::success())
}

/// A failed case: `message` in a sentence, `at_length` with every detail.
fn failed(name: &str, message: &str, at_length: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(xml_text(message)).set_description(xml_text(at_length));
    case(name, status)
}

fn case(name: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(xml_text(name), status);
    case.set_classname(NAME);
    case
}

/// XML 1.0 has no U+FFFE and no U+FFFF, and `XmlString` takes out control characters alone.
fn xml_text(text: &str) -> XmlString {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}").into()
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
        assert!(suite.contains(r#"tests="3" skipped="0" failures="0" errors="0""#), "{suite}");
        for name in ["verdict", "p99&lt;1s", "loss=0"] {
            assert!(
                suite.contains(&format!("name=\"{name}\" classname=\"roomcast-loadgen\"/>")),
                "{name}: {suite}"
            );
        }
    }

    #[test]
    fn what_failed_says_why_and_nothing_in_it_is_markup() {
        let mut report = made_up();
        let mut violations = Violations::default();
        violations.add(Kind::Lost, 7, || "room 1: <chat> \"5\" & more\u{0}\u{ffff}".to_owned());
        report.violations = violations;
        report.verdict = Verdict::Violations;
        let suite = xml(&report.held_to(&parse_all("p99<1ms").unwrap()));
        assert!(suite.contains(r#"tests="3" skipped="0" failures="3" errors="0""#), "{suite}");
        for failure in [
            "<failure message=\"found 120 ms\">threshold    FAILED p99&lt;1ms: 120 ms</failure>",
            "<failure message=\"7 times\">room 1: &lt;chat&gt; &quot;5&quot; &amp; more\u{fffd}</failure>",
        ] {
            assert!(suite.contains(failure), "{failure}: {suite}");
        }
        assert!(!suite.contains("<chat>"));
    }
}
