//! The thread that writes: whoever has something to say hands it over and goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::Level;

use super::codes;
use super::files;
use super::line::{About, Line};
use super::loki::Entry;
use crate::cli::output::write_err;
use crate::config::{LogFiles, LogFormat};

/// So many lines may wait for the disk; more are lost, and their number is written.
const QUEUE: usize = 16_384;
/// Written at once at most.
const BATCH: usize = 64 * 1024;
/// So many bytes are kept for Loki.
const MOST_FOR_LOKI: usize = 4 * 1024 * 1024;

/// What the thread is told.
enum Order {
    Line(Box<Line>),
    /// Everything before this is written; then the answer comes.
    Flush(Sender<()>),
    /// What Loki has not got yet.
    ForLoki(oneshot::Sender<Vec<Entry>>),
}

/// The way to the thread. It ends when the last of these is gone.
#[derive(Clone)]
pub(super) struct Writer {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    /// Opens the files and starts the thread. What cannot be opened is said on stderr once, and left out.
    pub fn start(files: &LogFiles, format: LogFormat, loki: bool) -> io::Result<Self> {
        let mut failed = Vec::new();
        let mut open = |path: &Option<PathBuf>| {
            let path = path.clone()?;
            match files::open(&path) {
                Ok(file) => Some(Output { file, path, buffer: Vec::new(), broken: false }),
                Err(why) => {
                    failed.push((path, why));
                    None
                }
            }
        };
        let debugfile = open(&files.debugfile);
        // One file for both gets every line once.
        let logfile = if files.logfile == files.debugfile { None } else { open(&files.logfile) };
        if !failed.is_empty() {
            write_err(&format!("warning[{}]: {}\n", codes::LOG_FILE, files::complaint(&failed)));
        }
        let (orders, received) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let thread = Thread {
            logfile,
            debugfile,
            format,
            lost: lost.clone(),
            loki: loki.then(Vec::new),
            loki_bytes: 0,
            too_many: 0,
        };
        thread::Builder::new().name("mt-log".to_owned()).spawn(move || thread.run(&received))?;
        Ok(Self { orders, lost })
    }

    /// Hands a line over. Never waits.
    pub fn line(&self, line: Line) {
        match self.orders.try_send(Order::Line(Box::new(line))) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns when everything is written, or after this long.
    pub fn flush(&self, within: Duration) {
        let (done, is_done) = channel();
        // The queue may be full: the thread then makes room, or the disk hangs.
        let deadline = Instant::now() + within;
        let mut order = Order::Flush(done);
        while let Err(TrySendError::Full(back)) = self.orders.try_send(order) {
            if Instant::now() >= deadline {
                return;
            }
            order = back;
            thread::sleep(Duration::from_millis(5));
        }
        let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    /// What Loki has not got yet; nothing if the thread cannot keep up.
    pub async fn for_loki(&self) -> Vec<Entry> {
        let (sender, receiver) = oneshot::channel();
        match self.orders.try_send(Order::ForLoki(sender)) {
            Ok(()) => receiver.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

/// One file.
struct Output {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    /// The last write failed, and that has been said.
    broken: bool,
}

impl Output {
    fn add(&mut self, line: &str) {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        if self.buffer.len() >= BATCH {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => self.broken = false,
            Err(error) => {
                if !self.broken {
                    let complaint = files::complaint(&[(self.path.clone(), error)]);
                    write_err(&format!("warning[{}]: {complaint}\n", codes::LOG_FILE));
                }
                self.broken = true;
            }
        }
        self.buffer.clear();
    }
}

struct Thread {
    logfile: Option<Output>,
    debugfile: Option<Output>,
    format: LogFormat,
    lost: Arc<AtomicU64>,
    loki: Option<Vec<Entry>>,
    loki_bytes: usize,
    /// What Loki does not get, since it got something last.
    too_many: u64,
}

impl Thread {
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            self.obey(order);
            // Whatever waits goes into the same write.
            while let Ok(order) = orders.try_recv() {
                self.obey(order);
            }
            self.say_what_was_lost();
            self.write();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Line(line) => self.line(&line),
            Order::Flush(done) => {
                self.say_what_was_lost();
                self.write();
                // Whoever asked may have lost patience.
                let _ = done.send(());
            }
            Order::ForLoki(sender) => {
                let _ = sender.send(self.for_loki());
            }
        }
    }

    fn line(&mut self, line: &Line) {
        let rendered = line.render(self.format);
        if let Some(debugfile) = &mut self.debugfile {
            debugfile.add(&rendered);
        }
        if line.level > Level::INFO {
            return;
        }
        if let Some(logfile) = &mut self.logfile {
            logfile.add(&rendered);
        }
        if let Some(entries) = &mut self.loki {
            if self.loki_bytes >= MOST_FOR_LOKI {
                self.too_many += 1;
                return;
            }
            let text = match self.format {
                LogFormat::Text => line.render(LogFormat::Logfmt),
                LogFormat::Logfmt | LogFormat::Json => rendered,
            };
            self.loki_bytes += text.len();
            entries.push(Entry { at: line.at, line: text });
        }
    }

    /// What it has not got yet. It is told, too, what it does not get.
    fn for_loki(&mut self) -> Vec<Entry> {
        let format = self.loki_format();
        let mut entries = self.loki.as_mut().map(std::mem::take).unwrap_or_default();
        if self.too_many > 0 {
            let line = warning("lines were left out here: too many for Loki, the log file has them", self.too_many);
            entries.push(Entry { at: line.at, line: line.render(format) });
        }
        (self.loki_bytes, self.too_many) = (0, 0);
        entries
    }

    /// Loki's users search with `| logfmt` or `| json`.
    fn loki_format(&self) -> LogFormat {
        match self.format {
            LogFormat::Text | LogFormat::Logfmt => LogFormat::Logfmt,
            LogFormat::Json => LogFormat::Json,
        }
    }

    fn say_what_was_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.line(&warning("lines of this log were lost: the disk could not keep up", lost));
        }
    }

    fn write(&mut self) {
        for output in [&mut self.logfile, &mut self.debugfile].into_iter().flatten() {
            output.write();
        }
    }
}

/// So many lines are not where they should be.
fn warning(message: &str, lost: u64) -> Line {
    Line {
        at: Timestamp::now(),
        level: Level::WARN,
        library: None,
        about: About::default(),
        message: message.to_owned(),
        fields: vec![("lost", lost.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        Line {
            at: Timestamp::UNIX_EPOCH,
            level: Level::INFO,
            library: None,
            about: About::default(),
            message: message.to_owned(),
            fields: Vec::new(),
        }
    }

    #[test]
    fn a_flush_comes_back_when_everything_said_before_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // One file for both: every line is there once.
        let files = LogFiles { logfile: Some(path.clone()), debugfile: Some(path.clone()) };
        let writer = Writer::start(&files, LogFormat::Text, false).unwrap();
        for number in 0..5_000 {
            writer.line(line(&format!("number {number}")));
        }
        writer.flush(Duration::from_secs(60));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 5_000);
        assert!(text.ends_with("number 4999\n"));
    }

    #[test]
    fn who_says_something_never_waits_and_what_is_lost_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Nobody takes the lines: the disk hangs.
        let (orders, received) = sync_channel(2);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { orders, lost: lost.clone() };
        for number in 0..5 {
            writer.line(line(&format!("number {number}")));
        }
        let file = files::open(&path).unwrap();
        let logfile = Some(Output { file, path: path.clone(), buffer: Vec::new(), broken: false });
        drop(writer);
        Thread { logfile, debugfile: None, format: LogFormat::Logfmt, lost, loki: None, loki_bytes: 0, too_many: 0 }
            .run(&received);
        let text = std::fs::read_to_string(&path).unwrap();
        let said: Vec<_> = text.lines().map(|line| line.split_once("msg=").unwrap().1).collect();
        let lost = "\"lines of this log were lost: the disk could not keep up\" lost=3";
        assert_eq!(said, ["\"number 0\"", "\"number 1\"", lost]);
    }

    #[test]
    fn loki_gets_what_the_info_file_gets_each_line_once() {
        let writer = Writer::start(&LogFiles::default(), LogFormat::Text, true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        writer.line(line("one"));
        writer.line(Line { level: Level::DEBUG, ..line("two") });
        let got = runtime.block_on(writer.for_loki());
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].line, "time=1970-01-01T00:00:00.000Z level=info msg=one");
        assert_eq!(runtime.block_on(writer.for_loki()), []);
    }

    #[test]
    fn what_is_too_much_for_loki_is_counted_there_and_whole_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let files = LogFiles { logfile: Some(path.clone()), debugfile: None };
        let writer = Writer::start(&files, LogFormat::Json, true).unwrap();
        let long = "x ".repeat(900);
        let count = MOST_FOR_LOKI / long.len() + 100;
        for _ in 0..count {
            writer.line(line(&long));
        }
        // The queue holds more than these, and the file must have them.
        writer.flush(Duration::from_secs(60));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut got = runtime.block_on(writer.for_loki());
        let last = got.pop().unwrap().line;
        let last: serde_json::Value = serde_json::from_str(&last).unwrap();
        assert!(last["message"].as_str().unwrap().starts_with("lines were left out here"), "{last}");
        assert_eq!(last["lost"], count - got.len());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), count);
        writer.line(line("later"));
        assert_eq!(runtime.block_on(writer.for_loki()).len(), 1, "and what comes later is sent again");
    }
}
