//! A mail server that takes everything and remembers it: what counts is what has arrived.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nobody talks that long.
const HANGS: Duration = Duration::from_secs(60);

/// A mail that the server has said yes to, or was about to when its sender died.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mail {
    /// The recipients, sorted.
    pub to: String,
    /// Its Message-ID.
    pub id: String,
}

#[derive(Default)]
struct Desk {
    /// Conversations that go on.
    open: usize,
    arrived: Vec<Mail>,
}

/// The server; it lives as long as the test.
pub struct Post {
    pub port: u16,
    desk: Arc<Mutex<Desk>>,
}

impl Post {
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
        let port = listener.local_addr().expect("it is bound").port();
        let desk = Arc::new(Mutex::new(Desk::default()));
        let of_thread = desk.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                of_thread.lock().expect("no panic").open += 1;
                let desk = of_thread.clone();
                std::thread::spawn(move || {
                    // A sender that is killed ends the conversation at any word.
                    let _ = talk(&stream, &desk);
                    desk.lock().expect("no panic").open -= 1;
                });
            }
        });
        Self { port, desk }
    }

    /// What has arrived since the last look, once every sender has hung up.
    pub fn collect(&self) -> Vec<Mail> {
        let since = Instant::now();
        loop {
            let mut desk = self.desk.lock().expect("no panic");
            if desk.open == 0 {
                return std::mem::take(&mut desk.arrived);
            }
            drop(desk);
            assert!(since.elapsed() < HANGS, "a conversation with the mail server does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn talk(stream: &TcpStream, desk: &Mutex<Desk>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(HANGS))?;
    let mut say = stream;
    let mut lines = BufReader::new(stream).lines();
    say.write_all(b"220 toy\r\n")?;
    let mut to = Vec::new();
    while let Some(line) = lines.next() {
        let line = line?;
        let word = line.split(' ').next().unwrap_or_default().to_uppercase();
        match word.as_str() {
            "RCPT" => to.push(line.trim_start_matches("RCPT TO:").to_owned()),
            "MAIL" => to.clear(),
            "DATA" => {
                say.write_all(b"354 go on\r\n")?;
                let mut id = None;
                loop {
                    let Some(line) = lines.next() else { return Ok(()) };
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    id = id.or(line.strip_prefix("Message-ID: ").map(str::to_owned));
                }
                to.sort();
                let mail = Mail { to: to.join(" "), id: id.expect("every mail of mt has a Message-ID") };
                desk.lock().expect("no panic").arrived.push(mail);
            }
            "QUIT" => return say.write_all(b"221 bye\r\n"),
            _ => {}
        }
        say.write_all(if word == "EHLO" { b"250-toy\r\n250 8BITMIME\r\n" } else { b"250 yes\r\n" })?;
    }
    Ok(())
}
