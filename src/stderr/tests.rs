use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use super::*;

/// A way with a thread that writes into a pipe, and both ends of it.
fn way() -> (&'static Way, PipeReader, PipeWriter) {
    let way: &'static Way = Box::leak(Box::new(Way::new()));
    let (reader, writer) = io::pipe().unwrap();
    way.hold();
    way.start(writer.try_clone().unwrap());
    (way, reader, writer)
}

/// Nothing here takes so long.
const HANGING: Duration = Duration::from_secs(60);

/// The lines that arrive; none for too long fails the test.
fn lines(reader: PipeReader) -> impl Iterator<Item = String> {
    let (arrived, arrives) = channel();
    thread::spawn(move || {
        // Until the test has seen enough.
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        while lines.next().is_some_and(|line| arrived.send(line).is_ok()) {}
    });
    std::iter::from_fn(move || Some(arrives.recv_timeout(HANGING).expect("another line")))
}

/// More than the pipe, what is being written and what waits hold together: how many lines were said.
fn overfill(way: &Way) -> usize {
    let line = format!("{}\n", "x".repeat(1023));
    let count = (2 * MOST_WAITING + 1024 * 1024) / line.len();
    (0..count).for_each(|_| assert!(way.take(&line)));
    count
}

#[test]
fn nobody_waits_for_a_reader_who_stopped_and_what_was_lost_is_said_when_he_is_back() {
    let (way, reader, _writer) = way();
    let said = overfill(way);
    let mut lines = lines(reader);
    let (mut read, mut lost) = (0, 0);
    while read + lost < said {
        let line = lines.next().unwrap();
        match line.strip_prefix("warning[MT0202]: ").and_then(|line| line.split_once(" messages are missing here")) {
            Some((count, _)) => lost += count.parse::<usize>().unwrap(),
            None => read += 1,
        }
    }
    assert!(lost > 0 && read > 0, "{read} were read, {lost} lost");
    assert_eq!(read + lost, said);
    way.take("later\n");
    assert_eq!(lines.next().unwrap(), "later", "what comes later is written again, and nothing is said of it");
}

#[test]
fn the_end_comes_though_nobody_reads() {
    let (way, _reader, writer) = way();
    overfill(way);
    let (ended, has_ended) = channel();
    thread::spawn(move || {
        way.finish(writer.as_fd());
        ended.send(()).unwrap();
    });
    has_ended.recv_timeout(HANGING).expect("the end does not wait for ever");
}

#[test]
fn the_end_waits_for_everything_that_was_said() {
    let (way, reader, writer) = way();
    let mut lines = lines(reader);
    (0..5_000).for_each(|number| assert!(way.take(&format!("{number}\n"))));
    way.take("last\n");
    way.finish(writer.as_fd());
    let state = way.lock();
    assert!(!state.has_work() && !state.writing);
    assert!(lines.any(|line| line == "last"));
}

#[test]
fn pieces_end_with_lines_and_arrive_whole() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    let text = format!("{}\n{}\n{}", "a".repeat(3_000), "b".repeat(3_000), "c".repeat(5_000));
    let mut pieces = 0;
    write_whole(&mut writer, text.as_bytes(), || pieces += 1).unwrap();
    drop(writer);
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read, text);
    assert_eq!(pieces, 4, "two lines, and one in two pieces");
}

/// Tells what is asked of it.
struct Asked(Sender<&'static str>);

impl Picture for Asked {
    fn draw(&mut self) {
        // Nobody counts the drawings.
        let _ = self.0.send("draw");
    }

    fn aside(&mut self, write: &mut dyn FnMut()) {
        self.0.send("aside").unwrap();
        write();
        self.0.send("written").unwrap();
    }

    fn clear(&mut self) {
        self.0.send("clear").unwrap();
    }
}

#[test]
fn a_picture_steps_aside_for_words_and_is_gone_before_the_last() {
    let (way, reader, _writer) = way();
    let (asked, was_asked) = channel();
    way.change(Some(Box::new(Asked(asked))));
    let next = || loop {
        match was_asked.recv_timeout(HANGING).expect("it is asked for something") {
            "draw" => {}
            other => return other,
        }
    };
    assert_eq!(was_asked.recv_timeout(HANGING), Ok("draw"));
    way.take("one\n");
    assert_eq!((next(), next()), ("aside", "written"));
    way.change(None);
    way.take("two\n");
    assert_eq!(next(), "clear");
    assert_eq!(lines(reader).take(2).collect::<Vec<_>>(), ["one", "two"]);
    let more = was_asked.recv_timeout(HANGING);
    assert_eq!(more, Err(RecvTimeoutError::Disconnected), "it is gone, and was asked for nothing more");
}

#[test]
fn before_the_fork_words_are_kept_and_the_copy_says_none_of_them() {
    let way: &'static Way = Box::leak(Box::new(Way::new()));
    assert!(!way.take("at once\n"), "who only reads writes by itself");
    way.hold();
    assert!(way.take("kept\n"));
    assert_eq!(way.lock().next_words(), "kept\n");
    assert!(way.take("kept\n"));
    way.hold();
    assert_eq!(way.lock().next_words(), "");
}

#[test]
fn no_secret_is_said_neither_at_once_nor_later() {
    let way = Way::new();
    let said = " WARN said hvs.CAESIJlongEnoughToBeOne0123456789 code=MT0200\n";
    let mut at_once = String::new();
    way.say(said, |text| at_once.push_str(text));
    way.hold();
    way.say(said, |text| panic!("written at once: {text}"));
    for shown in [at_once, way.lock().next_words()] {
        assert_eq!(shown, " WARN said [redacted] code=MT0200\n");
    }
}

/// Panics, whatever is asked of it.
struct Broken;

impl Picture for Broken {
    fn draw(&mut self) {
        panic!("a picture panics");
    }

    fn aside(&mut self, _write: &mut dyn FnMut()) {
        panic!("a picture panics");
    }

    fn clear(&mut self) {
        panic!("a picture panics");
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        panic!("a picture panics");
    }
}

#[test]
fn a_picture_that_panics_costs_no_words() {
    let (way, reader, _writer) = way();
    let mut lines = lines(reader);
    for round in ["one", "two"] {
        way.change(Some(Box::new(Broken)));
        way.take(&format!("{round}\n"));
        assert_eq!(lines.next().unwrap(), round);
    }
}

#[test]
fn without_a_thread_the_end_writes_what_fits_and_waits_for_nobody() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    let (ended, has_ended) = channel();
    thread::spawn(move || {
        write_what_fits(&mut writer, &vec![b'x'; MOST_WAITING]);
        ended.send(()).unwrap();
    });
    has_ended.recv_timeout(HANGING).expect("it waits for nobody");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(read.len() >= PIECE, "a pipe takes more than one piece");
}
