//! A stand-in for the Hub on the loopback, for tests of what fetches from it.

use crate::Hub;
use hf_hub::HFClient;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One repository, model and data set alike, `owner/tiny` at branch `main`, and a log of the requests.
///
/// # Panics
/// Every method, where the loopback cannot be used.
pub struct StandInHub {
    /// What `HF_ENDPOINT` is to be.
    pub endpoint: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl StandInHub {
    /// The commit that `main` names.
    pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// Serves the files, or answers every request with the status `refusal`.
    pub fn start<T: AsRef<[u8]>>(files: &[(&str, T)], refusal: Option<u16>) -> Self {
        let (listener, endpoint) = listen();
        let log = Arc::new(Mutex::new(Vec::new()));
        let files: BTreeMap<String, Vec<u8>> = files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_ref().to_vec()))
            .collect();
        let server_log = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that has read enough may hang up first.
                let _ = answer(stream, &files, refusal, &server_log);
            }
        });
        Self { endpoint, log }
    }

    /// A Hub that nobody serves.
    pub fn unreachable() -> Self {
        let (_, endpoint) = listen();
        Self {
            endpoint,
            log: Arc::default(),
        }
    }

    /// The client's side, with a cache of its own.
    pub fn hub(&self, cache: &Path, offline: bool) -> Hub {
        let client = HFClient::builder()
            .endpoint(&self.endpoint)
            .token("hf_secret")
            .cache_dir(cache)
            .retry_max_attempts(0)
            .retry_base_delay(Duration::from_millis(1))
            .build_sync();
        Hub {
            client: client.expect("the client's settings are constants"),
            cache: cache.to_path_buf(),
            offline,
        }
    }

    /// Method and path of the requests since the last call, marked where they came without the token.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback is free");
    let address = listener.local_addr().expect("a bound port has an address");
    (listener, format!("http://{address}"))
}

fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    refusal: Option<u16>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let token = lines
        .take_while(|line| !line.is_empty())
        .any(|line| line.eq_ignore_ascii_case("authorization: Bearer hf_secret"));
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(format!("{method} {path}{}", if token { "" } else { " without token" }));
    let (status, body) = match (refusal, find(path, files)) {
        (Some(status), _) => (status, b"no".to_vec()),
        (None, Some(body)) => (200, body),
        (None, None) => (404, b"no".to_vec()),
    };
    let headers = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\nETag: \"{}\"\r\nX-Repo-Commit: {}\r\n\
         X-Error-Message: ask first\r\n\r\n",
        body.len(),
        crate::sha256_bytes(&body),
        StandInHub::COMMIT,
    );
    stream.write_all(headers.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(())
}

/// A file at `/owner/tiny/resolve/<revision>/`, or the list of files at `/api/models/owner/tiny/revision/<revision>`;
/// the same below `datasets`.
fn find(path: &str, files: &BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    let revision_of = |rest: &str| ["main", StandInHub::COMMIT].contains(&rest);
    let listed = ["/api/models/", "/api/datasets/"]
        .iter()
        .find_map(|api| path.strip_prefix(api));
    if let Some(rest) = listed {
        rest.strip_prefix("owner/tiny/revision/")
            .filter(|rest| revision_of(rest))?;
        let siblings: Vec<_> = files
            .keys()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let info = serde_json::json!({ "id": "owner/tiny", "sha": StandInHub::COMMIT, "siblings": siblings });
        return Some(info.to_string().into_bytes());
    }
    let path = path.strip_prefix("/datasets").unwrap_or(path);
    let (revision, name) = path.strip_prefix("/owner/tiny/resolve/")?.split_once('/')?;
    revision_of(revision).then(|| files.get(name).cloned())?
}
