//! `mt explain`: what an error code means and what to do about it.

use std::io::{self, Write};

use clap::Args;

use crate::explain::{self, Entry};
use crate::workflow::code::Code;

/// Explain an error code such as MT0105, or list them all.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArgs {
    /// The code, as messages show it; MT and leading zeros may be left out.
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

/// Prints the explanation, or all titles. The exit code.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(args: &ExplainArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let Some(asked) = &args.code else {
        for Entry { code, title, .. } in explain::all() {
            writeln!(out, "{code}  {title}")?;
        }
        return Ok(0);
    };
    let Some(code) = read(asked) else {
        let asked: String = asked.chars().filter(|c| !c.is_control()).take(40).collect();
        writeln!(err, "{asked} is not an error code: expected MT and four digits, as in MT0105")?;
        return Ok(2);
    };
    if let Some(Entry { code, title, text }) = explain::find(code) {
        writeln!(out, "{code}: {title}\n\n{text}")?;
        return Ok(0);
    }
    write!(err, "no message has the code {code}")?;
    if let Some(about) = explain::about(code) {
        write!(err, "; numbers near it are about {about}")?;
    }
    let nearest = explain::all().into_iter().min_by_key(|entry| entry.code.0.abs_diff(code.0));
    if let Some(Entry { code, title, .. }) = nearest {
        write!(err, "\nthe nearest is {code}: {title}")?;
    }
    writeln!(err, "\n`mt explain` lists them all")?;
    Ok(2)
}

/// `MT0105`, `mt105`, `105`.
fn read(text: &str) -> Option<Code> {
    let digits = text.get(..2).filter(|start| start.eq_ignore_ascii_case("mt")).map_or(text, |_| &text[2..]);
    let number = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| digits.parse().ok().map(Code)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(code: Option<&str>) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(&ExplainArgs { code: code.map(str::to_owned) }, &mut out, &mut err).unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_known_code_is_explained_however_it_is_written() {
        for code in ["MT0105", "mt0105", "Mt105", "105", "0105"] {
            let (exit, out, err) = explained(Some(code));
            assert_eq!(exit, 0, "{code}");
            assert!(out.starts_with("MT0105: a step needs"), "{out}");
            assert_eq!(err, "");
        }
    }

    #[test]
    fn without_a_code_all_are_listed() {
        let (exit, out, _) = explained(None);
        assert_eq!(exit, 0);
        assert_eq!(out.lines().count(), explain::all().len());
    }

    #[test]
    fn an_unknown_code_is_wrong_usage_and_names_the_nearest() {
        let (exit, out, err) = explained(Some("MT0130"));
        assert_eq!((exit, out.as_str()), (2, ""));
        assert!(err.contains("no message has the code MT0130"), "{err}");
        assert!(err.contains("about workflow files"), "{err}");
        assert!(err.contains("the nearest is MT0127"), "{err}");
    }

    #[test]
    fn what_is_no_code_is_wrong_usage() {
        for text in ["", "MT", "MTx", "MT00001", "99999", "-1", "\u{1b}[2J", "é"] {
            let (exit, out, err) = explained(Some(text));
            assert_eq!((exit, out.as_str()), (2, ""), "{text:?}");
            assert!(!err.contains('\u{1b}'), "{err:?}");
        }
    }
}
