//! A server on the loopback that answers by rule, for what a real one cannot be made to do: fail at will.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server was sent.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
}

/// Status line, further header lines, body; `None` closes the connection without a word.
pub(super) type Answer = Option<(&'static str, &'static str, Value)>;

pub(super) struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `rule` gets a request and the number of requests before it.
    pub fn start(rule: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (seen, rule) = (Arc::new(Mutex::new(Vec::new())), Arc::new(rule));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, rule) = (Arc::clone(&log), Arc::clone(&rule));
                std::thread::spawn(move || serve(stream, &log, &*rule));
            }
        });
        Self { url, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, rule: &dyn Fn(&Seen, usize) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            let found = lines.iter().filter_map(|line| line.split_once(": "));
            found
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
                .next()
        };
        let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        let request = Seen {
            path: lines[0].split(' ').nth(1)?.to_owned(),
            authorization: header("authorization"),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let (status, headers, answer) = rule(&request, before)?;
        let text = answer.to_string();
        let length = text.len();
        write!(
            &stream,
            "HTTP/1.1 {status}\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{text}"
        )
        .ok()?;
    }
}
