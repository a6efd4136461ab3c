use std::fs::File;

use super::*;

fn terminal() -> Surroundings {
    Surroundings { terminal: true, measured: Some(120), ..Surroundings::default() }
}

#[test]
fn only_a_terminal_gets_colour_and_a_width() {
    assert_eq!(Style::decide(&terminal()), Style { colour: true, width: 120 });
    assert_eq!(Style::decide(&Surroundings::default()), Style::PLAIN);
}

#[test]
fn no_color_counts_only_when_it_is_not_empty() {
    let with = |value: &str| Style::decide(&Surroundings { no_color: Some(value.to_owned()), ..terminal() }).colour;
    assert!(!with("1"));
    assert!(with(""));
}

#[test]
fn a_dumb_terminal_gets_no_colour() {
    assert!(!Style::decide(&Surroundings { term: Some("dumb".to_owned()), ..terminal() }).colour);
}

#[test]
fn columns_wins_over_the_terminal_and_nonsense_is_ignored() {
    let with = |value: &str| Style::decide(&Surroundings { columns: Some(value.to_owned()), ..terminal() }).width;
    assert_eq!(with("90"), 90);
    assert_eq!(with("0"), 120);
    assert_eq!(with("wide"), 120);
    assert_eq!(with("3"), 40);
}

#[test]
fn paint_leaves_plain_text_alone() {
    let style = Style { colour: true, width: 80 };
    assert_eq!(style.paint(Paint::Bad, "failed"), "\x1b[1;31mfailed\x1b[0m");
    assert_eq!(style.paint(Paint::Plain, "failed"), "failed");
    assert_eq!(Style::PLAIN.paint(Paint::Bad, "failed"), "failed");
}

fn sample(style: &Style) -> String {
    table(
        &["RUN", "STATUS", "RESULT"],
        vec![
            vec![Cell::plain("01k4q8vt"), Cell::new("partial", Paint::Warn), Cell::plain("48 ok, 2 failed")],
            vec![
                Cell::plain("01k4jx9e"),
                Cell::new("interrupted", Paint::Strong),
                Cell::plain("mt01 rebooted; mt runs resume 01k4jx9e"),
            ],
        ],
        style,
    )
}

#[test]
fn a_table_has_two_spaces_between_columns_and_none_at_the_end() {
    insta::assert_snapshot!(sample(&Style::PLAIN));
}

#[test]
fn a_narrow_table_breaks_its_last_column_only() {
    let text = sample(&Style { colour: false, width: 44 });
    assert!(text.lines().all(|line| line.width() <= 44), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_coloured_table_is_the_plain_one_with_escapes() {
    let coloured = sample(&Style { colour: true, width: 120 });
    assert!(coloured.contains("\x1b["), "{coloured:?}");
    let bare = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap().replace_all(&coloured, "").into_owned();
    let trimmed: String = bare.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert_eq!(trimmed, sample(&Style::PLAIN));
}

#[test]
fn no_control_character_passes() {
    assert_eq!(clean("one\ntwo\tthree\r\n"), "one two three");
    assert_eq!(clean("\x1b[2Jgone\x07\u{9b}1m\u{202e}txt\r"), "\u{fffd}[2Jgone\u{fffd}\u{fffd}1m\u{fffd}txt");
    assert_eq!(clean("Größe 日本"), "Größe 日本");
    let all: String = (0..0x3000u32).filter_map(char::from_u32).collect();
    assert!(!clean(&all).chars().any(is_hostile));
    let cell = table(&["A"], vec![vec![Cell::plain("\x1b]0;title\x07")]], &Style::PLAIN);
    assert!(!cell.trim_end_matches('\n').chars().any(|c| c.is_control() && c != '\n'), "{cell:?}");
}

#[test]
fn json_on_a_terminal_is_harmless_and_loses_nothing() {
    let evil = "\x1b[2J\u{7f}\u{9b}1m\u{202e}\u{feff} Größe";
    for text in [json(&[evil]), json_line(&[evil])] {
        assert!(!text.chars().any(|c| is_hostile(c) && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [evil]);
    }
}

#[test]
fn text_is_cut_by_columns_not_by_bytes() {
    assert_eq!(fit("short", 5), "short");
    assert_eq!(fit("longer", 5), "long…");
    assert_eq!(fit("日本語", 5), "日本…");
    assert_eq!(fit("日本語", 4), "日…");
}

#[test]
fn long_text_is_broken_at_spaces_and_ends() {
    assert_eq!(wrap("one two three four", 9, 5), ["one two", "three", "four"]);
    assert_eq!(wrap("one two three four", 9, 2), ["one two", "three fo…"]);
    assert_eq!(wrap(&"x".repeat(25), 10, 9), ["x".repeat(10), "x".repeat(10), "x".repeat(5)]);
    assert_eq!(wrap(&"x".repeat(5_000), Style::UNLIMITED, 4).concat().chars().count(), LONGEST_LINE);
    assert_eq!(wrap("", 10, 3), [""]);
}

#[test]
fn a_reader_that_went_away_is_not_an_error() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    write_to(&mut writer, "text").unwrap();
}

#[test]
fn a_full_disk_is_an_error() {
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(write_to(&mut full, "text").unwrap_err().kind(), io::ErrorKind::StorageFull);
}
