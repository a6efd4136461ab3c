//! What FERRY says: `{"ferry_status": "success", "ferry_error": [], "ferry_output": {"uid": 1234, …}}`.

use serde_json::Value;

use super::codes::{FERRY_ANSWER, FERRY_BAD_UID, FERRY_SAYS_NO};
use super::shown;
use crate::redact::redact;
use crate::workflow::action::{Class, Failure};

/// The UID in the answer. Whatever is not plainly one is a failure: a wrong UID sends tokens to the wrong place.
pub(crate) fn uid(body: &[u8], account: &str) -> Result<u32, Failure> {
    let failed = |class, code, message: String| Failure::new(class, code, message).with_output(shown(body));
    let no_answer =
        |why: String| failed(Class::Transient, FERRY_ANSWER, format!("FERRY's answer cannot be read: {why}"));
    let answer: Value = serde_json::from_slice(body).map_err(|error| no_answer(error.to_string()))?;
    let status = answer.get("ferry_status").and_then(Value::as_str);
    let status = status.ok_or_else(|| no_answer("it has no ferry_status".to_owned()))?;
    if status != "success" {
        let why = reasons(answer.get("ferry_error")).unwrap_or_else(|| format!("ferry_status is {status:?}"));
        let message = format!("FERRY has no answer for {account}: {}", redact(&why));
        return Err(failed(Class::Permanent, FERRY_SAYS_NO, message));
    }
    let bad = |why: String| failed(Class::Permanent, FERRY_BAD_UID, format!("FERRY's UID for {account} {why}"));
    let given = match answer.get("ferry_output").and_then(|output| output.get("uid")) {
        None | Some(Value::Null) => return Err(bad("is missing".to_owned())),
        Some(given) => given,
    };
    match given.as_u64() {
        Some(0) => Err(bad("is 0, which is root's".to_owned())),
        // The last one means "no user" to the system.
        Some(number) => match u32::try_from(number) {
            Ok(uid) if uid < u32::MAX => Ok(uid),
            Ok(_) | Err(_) => Err(bad(format!("is {number}, which is too large"))),
        },
        None => Err(bad(format!("is {}, not a whole number above 0", shown(given.to_string().as_bytes())))),
    }
}

/// `ferry_error`: a list of texts, or one text.
fn reasons(error: Option<&Value>) -> Option<String> {
    let text = match error? {
        Value::String(one) => one.clone(),
        Value::Array(several) => {
            let texts = several.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join("; ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    // One line: a line break of FERRY's would begin a line of its own in a log or a mail, which reads like one of ours.
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then(|| shown(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::code::Code;

    fn read(body: &str) -> Result<u32, (Code, String)> {
        uid(body.as_bytes(), "dunepro").map_err(|failure| (failure.code, failure.message))
    }

    fn with_uid(uid: &str) -> String {
        format!(r#"{{"ferry_status":"success","ferry_error":[],"ferry_output":{{"uid":{uid},"fullname":"x"}}}}"#)
    }

    #[test]
    fn a_success_with_a_uid_is_that_uid() {
        assert_eq!(read(&with_uid("1234")), Ok(1234));
        assert_eq!(read(&with_uid("4294967294")), Ok(4_294_967_294));
    }

    #[test]
    fn whatever_is_not_plainly_a_uid_is_refused_with_the_reason() {
        let bad = [
            ("0", "is 0"),
            ("-1", "is -1, not a whole number"),
            ("4294967295", "too large"),
            ("4294967296", "too large"),
            ("99999999999999999999", "not a whole number"),
            ("12.5", "is 12.5, not a whole number"),
            ("\"1234\"", "is \"1234\", not a whole number"),
            ("null", "is missing"),
            ("[1]", "not a whole number"),
        ];
        for (given, why) in bad {
            let (code, message) = read(&with_uid(given)).unwrap_err();
            assert_eq!(code, FERRY_BAD_UID, "{given}");
            assert!(message.contains(why) && message.contains("dunepro"), "{given}: {message}");
        }
        for output in ["{}", "null", "[]", "\"uid\""] {
            let body = format!(r#"{{"ferry_status":"success","ferry_error":[],"ferry_output":{output}}}"#);
            assert_eq!(read(&body).unwrap_err().0, FERRY_BAD_UID, "{output}");
        }
        assert_eq!(read(r#"{"ferry_status":"success"}"#).unwrap_err().0, FERRY_BAD_UID);
    }

    #[test]
    fn a_failure_is_told_in_ferrys_own_words() {
        let body =
            r#"{"ferry_status":"failure","ferry_error":["username does not exist.","no."],"ferry_output":{"uid":1}}"#;
        let (code, message) = read(body).unwrap_err();
        assert_eq!(code, FERRY_SAYS_NO);
        assert_eq!(message, "FERRY has no answer for dunepro: username does not exist.; no.");
        let (_, message) = read(r#"{"ferry_status":"failure","ferry_error":"one text"}"#).unwrap_err();
        assert!(message.ends_with("one text"), "{message}");
        let (_, message) = read(r#"{"ferry_status":"failure","ferry_error":["no\nrun succeeded"]}"#).unwrap_err();
        assert_eq!(message, "FERRY has no answer for dunepro: no run succeeded");
        let (_, message) = read(r#"{"ferry_status":"odd","ferry_output":{"uid":1}}"#).unwrap_err();
        assert!(message.ends_with(r#"ferry_status is "odd""#), "{message}");
    }

    #[test]
    fn what_is_no_answer_at_all_may_go_away_by_itself() {
        for body in ["", "<html>", "[]", "null", r#"{"ferry_output":{"uid":1}}"#, r#"{"ferry_status":"succ"#, "1234"] {
            let failure = uid(body.as_bytes(), "dunepro").unwrap_err();
            assert_eq!((failure.class, failure.code), (Class::Transient, FERRY_ANSWER), "{body:?}");
        }
    }

    #[test]
    fn a_token_in_an_answer_is_not_passed_on() {
        let token = format!("hvs.{}", "A".repeat(30));
        let failure = uid(format!(r#"{{"ferry_status":"no","ferry_error":["{token}"]}}"#).as_bytes(), "x").unwrap_err();
        assert!(!format!("{failure:?}").contains(&token), "{failure:?}");
    }
}
