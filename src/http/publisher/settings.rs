//! The body of `PUT /v1/rooms/{room}`: JSON in, checked settings out. Each mistake is named by its path.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::flush::{RuleField, SHARE_ALLOWED, Shares};
use crate::config::policy::{PolicyField, Said};
use crate::http::problem::Problem;
use crate::http::request::json_object;
use roomcast_core::limits::{EXPECTED_AUDIENCE_MAX, IDLE_CLOSE_MAX, ROOM_TYPES_MAX, TYPES_CHANGED_MAX};
use roomcast_core::room::id::TypeName;
use roomcast_core::room::pace::{RoomSettings, Unfit};
use roomcast_core::room::policy::{PolicyChange, TypePolicy, Types};

const FIELDS: &str = "expected_audience, flush, readable, limits, types, idle_close_s";

/// The path of the share to blame if a room's shares add up to more than 1: the last share in the body.
pub(super) fn share_to_blame(settings: &RoomSettings) -> &'static str {
    let named = settings.quotas_permille.iter().rposition(Option::is_some);
    Shares::PATHS[named.unwrap_or(0)]
}

/// Reads a body. A missing field, or `null`, leaves the room as it is. The settings of a type must fit the class
/// that `types`, the node's configuration, gives the type.
///
/// # Errors
/// 400 `bad_json`, `unknown_field` or `bad_value`.
pub(super) fn read(body: &[u8], types: &Types) -> Result<RoomSettings, Problem> {
    let fields = json_object(body)?;
    let mut settings = RoomSettings::default();
    for (name, value) in given(&fields) {
        match name {
            "expected_audience" => {
                let audience = whole(value, "expected_audience", 0..=EXPECTED_AUDIENCE_MAX)?;
                settings.expected_audience = Some(audience);
            }
            "idle_close_s" => {
                let span = 1..=IDLE_CLOSE_MAX.as_secs();
                settings.idle_close = Some(Duration::from_secs(whole(value, "idle_close_s", span)?));
            }
            "flush" | "readable" | "limits" => rules(name, value, &mut settings)?,
            "types" => settings.types = changes(object(value, "types")?, types)?,
            // Refused, not ignored: a misspelt field must not look like a setting in force.
            unknown => return Err(Problem::unknown_field("", unknown, FIELDS)),
        }
    }
    Ok(settings)
}

/// Reads one section of the rules into `settings`.
fn rules(section: &str, value: &Value, settings: &mut RoomSettings) -> Result<(), Problem> {
    for (name, value) in given(object(value, section)?) {
        let path = format!("{section}.{name}");
        // Shares are fractions; all other rules are whole numbers.
        if let Some(priority) = Shares::PATHS.iter().position(|known| *known == path) {
            let permille = value.as_f64().and_then(Shares::permille);
            settings.quotas_permille[priority] =
                Some(permille.ok_or_else(|| bad_value(path, SHARE_ALLOWED))?);
            continue;
        }
        let Some(field) = RuleField::at(&path) else {
            return Err(Problem::unknown_field(&format!("{section}."), name, names_in(section)));
        };
        let set = value.as_u64().and_then(|number| field.set(number, settings));
        set.ok_or_else(|| bad_value(field.path, format!("a whole number: {}", field.allowed())))?;
    }
    Ok(())
}

fn changes(
    given_types: &Map<String, Value>,
    types: &Types,
) -> Result<Vec<(TypeName, PolicyChange)>, Problem> {
    if given_types.len() > TYPES_CHANGED_MAX {
        return Err(bad_value("types", format!("at most {TYPES_CHANGED_MAX} types")));
    }
    let mut changes = Vec::new();
    for (name, value) in given(given_types) {
        let path = format!("types.{}", Problem::shown(name));
        let type_name = TypeName::parse(name).map_err(|bad| bad_value(path.clone(), bad.allowed))?;
        let change = policy_change(&types.policy(&type_name), &path, object(value, &path)?)?;
        changes.push((type_name, change));
    }
    Ok(changes)
}

/// Reads the changes for a type. The changes must fit `base`, the type's policy on this node.
fn policy_change(
    base: &TypePolicy,
    path: &str,
    fields: &Map<String, Value>,
) -> Result<PolicyChange, Problem> {
    // A class is a promise to publishers and devices, and one room can't change it under them.
    const CLASS_ALLOWED: &str =
        "no class: only the node's configuration sets the class of a type (types.NAME.class)";
    let mut said = Said::default();
    for (name, value) in given(fields) {
        if name == "class" {
            return Err(bad_value(format!("{path}.class"), CLASS_ALLOWED));
        }
        let Some(field) = PolicyField::named(name) else {
            let allowed = PolicyField::ALL.map(PolicyField::name).join(", ");
            return Err(Problem::unknown_field(&format!("{path}."), name, allowed));
        };
        said.note(field, value).ok_or_else(|| bad_value(format!("{path}.{name}"), field.allowed()))?;
    }
    let (change, misfits) = said.over(base);
    match misfits.first() {
        // A problem names one field; a further misfit shows up at the next try.
        None => Ok(change),
        Some(misfit) => {
            let problem = bad_value(format!("{path}.{}", misfit.field.name()), misfit.allowed);
            Err(problem
                .detail(format!("the node's configuration gives this type the class {}", base.class.name())))
        }
    }
}

/// The fields with a value other than `null`.
fn given(fields: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Problem> {
    value.as_object().ok_or_else(|| bad_value(path.to_owned(), "a JSON object"))
}

/// 400: each setting is allowed, but the room can't have all settings together.
pub(super) fn unfit_settings(unfit: Unfit, share: &'static str) -> Problem {
    match unfit {
        Unfit::Quotas { permille } => {
            let sum = f64::from(permille) / 1000.0;
            bad_value(
                share,
                format!(
                    "shares of all priorities that add up to at most 1; with the room's others, these are {sum}"
                ),
            )
        }
        Unfit::Types => {
            bad_value("types", format!("at most {ROOM_TYPES_MAX} types with settings of the room's own"))
        }
    }
}

/// The names of the fields in a section.
fn names_in(section: &str) -> String {
    let paths = RuleField::all().map(|field| field.path).into_iter().chain(Shares::PATHS);
    let names = paths.filter_map(|path| path.strip_prefix(section)?.strip_prefix('.'));
    names.collect::<Vec<_>>().join(", ")
}

/// A whole number within `span`, both ends included.
fn whole(value: &Value, field: &'static str, span: RangeInclusive<u64>) -> Result<u64, Problem> {
    let allowed = || format!("a whole number from {} to {}", span.start(), span.end());
    value.as_u64().filter(|number| span.contains(number)).ok_or_else(|| bad_value(field, allowed()))
}

fn bad_value(field: impl Into<Cow<'static, str>>, allowed: impl Into<Cow<'static, str>>) -> Problem {
    Problem::bad("bad_value", field, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::room::message::Class;
    use roomcast_core::room::pace::{Quotas, RoomRules};
    use roomcast_core::room::policy::{Merge, Priority, TypeRate};

    fn settings(body: &str) -> Result<RoomSettings, Problem> {
        let of = |name: &str, class| (TypeName::parse(name).unwrap(), TypePolicy::of(class));
        let types = Types::new([
            of("coupon", Class::Reliable),
            of("chat", Class::Normal),
            of("like", Class::Counter),
            of("online", Class::Latest),
            of("enter", Class::Lossy),
        ]);
        read(body.as_bytes(), &types)
    }

    #[test]
    fn a_put_changes_what_it_names_and_nothing_else() {
        let all = settings(
            r#"{"expected_audience":5000,"idle_close_s":60,"flush":{"gather_ms":10,"max_messages":5,
                "max_bytes":2048,"direct_members":0,"urgent_spacing_ms":30,"gather_max_ms":2000},
                "readable":{"normal_per_second":30,"high_per_second":0},
                "limits":{"room_messages_per_second":500}}"#,
        )
        .unwrap();
        assert_eq!(
            all,
            RoomSettings {
                expected_audience: Some(5000),
                gather: Some(Duration::from_millis(10)),
                messages_max: Some(5),
                bytes_max: Some(2048),
                direct_members: Some(0),
                urgent_spacing: Some(Duration::from_millis(30)),
                gather_max: Some(Duration::from_secs(2)),
                idle_close: Some(Duration::from_mins(1)),
                normal_per_second: Some(30),
                high_per_second: Some(0),
                messages_per_second: Some(500),
                ..RoomSettings::default()
            }
        );
        for nothing in
            ["{}", r#"{"flush":null,"types":null}"#, r#"{"flush":{"high_share":null},"types":{"chat":null}}"#]
        {
            assert_eq!(settings(nothing).unwrap(), RoomSettings::default(), "{nothing}");
        }
    }

    #[test]
    fn a_share_that_is_left_out_is_the_rooms() {
        let rules = RoomRules { quotas: Quotas { permille: [100, 200, 500] }, ..RoomRules::default() };
        for (shares, permille, unfit) in [
            (r#"{"high_share":0.7}"#, [100, 200, 700], None),
            (r#"{"high_share":1,"normal_share":0,"low_share":0}"#, [0, 0, 1000], None),
            (r#"{"low_share":0.3,"normal_share":null}"#, [300, 200, 500], None),
            (r#"{"low_share":0.301}"#, [301, 200, 500], Some(Unfit::Quotas { permille: 1001 })),
        ] {
            let settings = settings(&format!(r#"{{"flush":{shares}}}"#)).unwrap();
            assert_eq!(rules.with(&settings).quotas, Quotas { permille }, "{shares}");
            assert_eq!(settings.unfit(&rules, 0), unfit, "{shares}");
        }
        let problem = unfit_settings(Unfit::Quotas { permille: 1001 }, "flush.low_share");
        assert_eq!((problem.code(), problem.named_field()), ("bad_value", Some("flush.low_share")));
        let many = RoomSettings::default().unfit(&rules, ROOM_TYPES_MAX + 1);
        assert_eq!(many, Some(Unfit::Types));
    }

    #[test]
    fn a_type_is_treated_otherwise_in_what_is_named() {
        let changed = settings(
            r#"{"types":{"chat":{"priority":"low","merge":"first","urgent":true,"ttl_ms":3000,"rate":20,
                "history":false,"weight":3},"coupon":{"ttl_ms":5000,"priority":"high"},
                "unheard":{"rate":7,"burst":1},"like":{"rate":0}}}"#,
        )
        .unwrap()
        .types;
        let of = |name: &str| changed.iter().find(|(changed, _)| changed.as_str() == name).unwrap().1;
        assert_eq!(
            of("chat"),
            PolicyChange {
                priority: Some(Priority::Low),
                merge: Some(Merge::First),
                urgent: Some(true),
                ttl: Some(Duration::from_secs(3)),
                rate: Some(Some(TypeRate { per_second: 20, burst: 20 })),
                history: Some(false),
                weight: Some(3),
            }
        );
        let coupon = PolicyChange {
            ttl: Some(Duration::from_secs(5)),
            priority: Some(Priority::High),
            ..PolicyChange::default()
        };
        assert_eq!(of("coupon"), coupon);
        assert_eq!(of("unheard").rate, Some(Some(TypeRate { per_second: 7, burst: 1 })));
        assert_eq!(of("like").rate, Some(None));
    }

    #[test]
    fn a_mistake_is_named() {
        let named_like_a_megabyte = format!(r#"{{"types":{{"{}":{{}}}}}}"#, "x".repeat(1 << 20));
        let shown = format!("types.{}", "x".repeat(64));
        for (body, code, field) in [
            (r#"{"flush":{"gather":1}}"#, "unknown_field", "flush.gather"),
            (r#"{"flush":{"cpu_share":0.5}}"#, "unknown_field", "flush.cpu_share"),
            (r#"{"audience":1}"#, "unknown_field", "audience"),
            (r#"{"flush":{"gather_ms":-1}}"#, "bad_value", "flush.gather_ms"),
            (r#"{"flush":{"gather_ms":1.5}}"#, "bad_value", "flush.gather_ms"),
            (r#"{"flush":7}"#, "bad_value", "flush"),
            (r#"{"flush":{"high_share":"much"}}"#, "bad_value", "flush.high_share"),
            (r#"{"flush":{"low_share":1.01}}"#, "bad_value", "flush.low_share"),
            (r#"{"flush":{"low_share":-0.01}}"#, "bad_value", "flush.low_share"),
            (r#"{"readable":{"normal":1}}"#, "unknown_field", "readable.normal"),
            (r#"{"readable":{"normal_per_second":1000001}}"#, "bad_value", "readable.normal_per_second"),
            (r#"{"readable":[]}"#, "bad_value", "readable"),
            (
                r#"{"limits":{"key_messages_per_second":1}}"#,
                "unknown_field",
                "limits.key_messages_per_second",
            ),
            (r#"{"limits":{"room_messages_per_second":-1}}"#, "bad_value", "limits.room_messages_per_second"),
            (r#"{"types":[]}"#, "bad_value", "types"),
            (r#"{"types":{"Chat":{}}}"#, "bad_value", "types.Chat"),
            (r#"{"types":{"chat":7}}"#, "bad_value", "types.chat"),
            (r#"{"types":{"chat":{"class":"lossy"}}}"#, "bad_value", "types.chat.class"),
            (r#"{"types":{"chat":{"colour":1}}}"#, "unknown_field", "types.chat.colour"),
            (r#"{"types":{"chat":{"weight":0}}}"#, "bad_value", "types.chat.weight"),
            (r#"{"types":{"chat":{"weight":"5"}}}"#, "bad_value", "types.chat.weight"),
            (r#"{"types":{"chat":{"priority":"hihg"}}}"#, "bad_value", "types.chat.priority"),
            (r#"{"types":{"chat":{"merge":"all"}}}"#, "bad_value", "types.chat.merge"),
            (r#"{"types":{"chat":{"rate":1000001}}}"#, "bad_value", "types.chat.rate"),
            (r#"{"types":{"chat":{"burst":5}}}"#, "bad_value", "types.chat.burst"),
            (r#"{"types":{"chat":{"ttl_ms":999}}}"#, "bad_value", "types.chat.ttl_ms"),
            (r#"{"types":{"coupon":{"priority":"low"}}}"#, "bad_value", "types.coupon.priority"),
            (r#"{"types":{"coupon":{"merge":"latest"}}}"#, "bad_value", "types.coupon.merge"),
            (r#"{"types":{"online":{"ttl_ms":5000}}}"#, "bad_value", "types.online.ttl_ms"),
            (r#"{"types":{"like":{"history":true}}}"#, "bad_value", "types.like.history"),
            (&named_like_a_megabyte, "bad_value", &shown),
            (r#"{"idle_close_s":0}"#, "bad_value", "idle_close_s"),
            (r#"{"idle_close_s":604801}"#, "bad_value", "idle_close_s"),
            (r#"{"expected_audience":"many"}"#, "bad_value", "expected_audience"),
            (r#"{"flush":{"gather_ms":5.5}}"#, "bad_value", "flush.gather_ms"),
            (r#"{"flush":{"gather_ms":5,"gather_ms":6}}"#, "bad_value", "flush.gather_ms"),
            (r#"{"types":{"chat":{"rate":1},"chat":{"rate":2}}}"#, "bad_value", "types.chat"),
            ("[]", "bad_json", "body"),
            ("{", "bad_json", "body"),
        ] {
            let problem = settings(body).unwrap_err();
            assert_eq!(problem.status(), 400, "{body:.100}");
            assert_eq!((problem.code(), problem.named_field()), (code, Some(field)), "{body:.100}");
        }
    }

    #[test]
    fn so_many_types_may_change_and_no_more() {
        let body = |count: usize| {
            let types: Vec<String> = (0..count).map(|n| format!(r#""t{n}":{{"weight":2}}"#)).collect();
            format!(r#"{{"types":{{{}}}}}"#, types.join(","))
        };
        assert_eq!(settings(&body(TYPES_CHANGED_MAX)).unwrap().types.len(), TYPES_CHANGED_MAX);
        assert_eq!(settings(&body(TYPES_CHANGED_MAX + 1)).unwrap_err().named_field(), Some("types"));
    }
}
