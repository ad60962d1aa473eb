//! A bad link to a registry: it counts what passes, and cuts, holds or alters one body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::spawn;

use crate::process::LIMIT;

/// How TLS begins: this link has none.
const TLS: u8 = 0x16;
/// Bytes that pass at once: fewer than any limit that a test sets.
const PIECE: usize = 4096;

/// What happens to bodies whose request names this in its address.
#[derive(Debug, Clone, Default)]
pub enum Rule {
    /// Nothing.
    #[default]
    Pass,
    /// The connection ends after so many bytes of the body, so many times.
    Cut {
        /// Part of the request's address.
        what: String,
        /// Bytes of the body.
        after: u64,
        /// How often.
        times: u32,
    },
    /// The same, but the connection stays open and silent until there is another rule.
    Hold {
        /// Part of the request's address.
        what: String,
        /// Bytes of the body.
        after: u64,
    },
    /// Every connection ends after so many bytes of what its requests send.
    Short {
        /// Bytes of all bodies on one connection.
        after: u64,
    },
    /// The link breaks again and again: after so many bytes that requests sent, whatever their connection. A body passes when
    /// all of it came, as behind a proxy that buffers, so that nothing of one that broke reaches the registry.
    Breaks {
        /// Bytes of all bodies.
        every: u64,
    },
    /// The first byte is another one.
    Alter {
        /// Part of the request's address.
        what: String,
    },
}

/// A request that passed.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Where its range begins, if it asks for one.
    pub from: Option<u64>,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rule: Rule,
    /// Changes with the rule.
    age: u64,
    held: bool,
    seen: Vec<Request>,
    /// Bytes of bodies that requests sent since there is this rule.
    sent: u64,
}

/// What is to be done after some bytes of a body.
enum Fate {
    Pass,
    Cut(u64),
    Hold(u64),
    Alter,
}

impl Proxy {
    /// Before this registry.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared { upstream: upstream.to_owned(), ..Shared::default() });
        spawn({
            let shared = Arc::clone(&shared);
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    let shared = Arc::clone(&shared);
                    spawn(move || connection(&client, &shared));
                }
            }
        });
        Self { address, shared }
    }

    /// From now on this; what is held ends.
    pub fn set(&self, rule: Rule) {
        let mut state = self.shared.state.lock().expect("the proxy");
        (state.rule, state.held, state.sent) = (rule, false, 0);
        state.age += 1;
        self.shared.news.notify_all();
    }

    /// Waits until a body is held.
    pub fn wait_until_held(&self) {
        let state = self.shared.state.lock().expect("the proxy");
        let (state, _) = self.shared.news.wait_timeout_while(state, LIMIT, |state| !state.held).expect("the proxy");
        assert!(state.held, "no body is held; seen: {:?}", state.seen);
    }

    /// What passed since the last time that this was asked.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.state.lock().expect("the proxy").seen)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Rule::Pass);
    }
}

fn connection(client: &TcpStream, shared: &Arc<Shared>) {
    let mut first = [0];
    if !client.peek(&mut first).is_ok_and(|count| count == 1) || first[0] == TLS {
        return;
    }
    let Ok(server) = TcpStream::connect(&shared.upstream) else { return };
    let current = Arc::new(Mutex::new(None));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    let answers = spawn({
        let (server, client, current, shared) =
            (clone(&server), clone(client), Arc::clone(&current), Arc::clone(shared));
        move || {
            pump(&server, &client, &shared, &current, false);
            ended(&server, &client);
        }
    });
    pump(client, &server, shared, &current, true);
    let _ = server.shutdown(Shutdown::Write);
    let _ = answers.join();
}

fn ended(one: &TcpStream, other: &TcpStream) {
    for stream in [one, other] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Passes messages on until one end is closed or a rule ends it.
fn pump(from: &TcpStream, to: &TcpStream, shared: &Shared, current: &Mutex<Option<Request>>, asks: bool) {
    let mut reader = BufReader::with_capacity(PIECE, from);
    let mut to = to;
    let mut carried = 0;
    while let Some(head) = head(&mut reader) {
        if asks {
            let request = request(&head);
            *current.lock().expect("the request") = Some(request.clone());
            shared.state.lock().expect("the proxy").seen.push(request);
        }
        let about = current.lock().expect("the request").clone().expect("an answer follows a request");
        let length = if !asks && about.method == "HEAD" { 0 } else { length(&head) };
        if asks && length > 0 && breaks(&shared.state.lock().expect("the proxy").rule) {
            if !link(&mut reader, to, &head, length, &mut carried, shared) {
                ended(from, to);
                return;
            }
            continue;
        }
        if to.write_all(head.as_bytes()).is_err() {
            return;
        }
        // A request's body is what a PUT or PATCH sends, an answer's what a GET brings.
        let methods: &[&str] = if asks { &["PUT", "PATCH"] } else { &["GET"] };
        let counts = length > 0 && methods.contains(&about.method.as_str());
        if !body(&mut reader, to, length, counts.then_some(about.path.as_str()), shared) {
            ended(from, to);
            return;
        }
    }
}

/// Passes a body on; whether the connection goes on.
fn body(reader: &mut impl Read, mut to: &TcpStream, length: u64, path: Option<&str>, shared: &Shared) -> bool {
    let mut passed = 0;
    let mut buffer = [0; PIECE];
    while passed < length {
        let most = buffer.len().min(usize::try_from(length - passed).unwrap_or(buffer.len()));
        let Ok(count @ 1..) = reader.read(&mut buffer[..most]) else { return false };
        let fate = path.map_or(Fate::Pass, |path| fate(path, passed, count as u64, shared));
        let piece = match fate {
            Fate::Cut(left) | Fate::Hold(left) => &buffer[..usize::try_from(left).unwrap_or(0)],
            Fate::Alter => {
                buffer[0] ^= 1;
                &buffer[..count]
            }
            Fate::Pass => &buffer[..count],
        };
        if to.write_all(piece).is_err() {
            return false;
        }
        match fate {
            Fate::Cut(_) => return false,
            Fate::Hold(_) => {
                let mut state = shared.state.lock().expect("the proxy");
                let age = state.age;
                state.held = true;
                shared.news.notify_all();
                drop(shared.news.wait_while(state, |state| state.age == age).expect("the proxy"));
                return false;
            }
            Fate::Pass | Fate::Alter => passed += count as u64,
        }
    }
    true
}

fn breaks(rule: &Rule) -> bool {
    matches!(rule, Rule::Short { .. } | Rule::Breaks { .. })
}

/// Passes a request on over a link that breaks; whether it did not.
fn link(
    reader: &mut impl Read,
    mut to: &TcpStream,
    head: &str,
    length: u64,
    carried: &mut u64,
    shared: &Shared,
) -> bool {
    let rule = shared.state.lock().expect("the proxy").rule.clone();
    let mut kept = head.as_bytes().to_vec();
    let mut left = length;
    let mut buffer = [0; PIECE];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(buffer.len()));
        let Ok(count @ 1..) = reader.read(&mut buffer[..most]) else { return false };
        left -= count as u64;
        *carried += count as u64;
        kept.extend_from_slice(&buffer[..count]);
        let (broken, buffered) = match rule {
            Rule::Short { after } => (*carried > after, false),
            Rule::Breaks { every } => {
                let mut state = shared.state.lock().expect("the proxy");
                let before = state.sent;
                state.sent += count as u64;
                (before / every < state.sent / every, true)
            }
            _ => (false, false),
        };
        if broken {
            return false;
        }
        if !buffered && to.write_all(&std::mem::take(&mut kept)).is_err() {
            return false;
        }
    }
    to.write_all(&kept).is_ok()
}

fn fate(path: &str, passed: u64, count: u64, shared: &Shared) -> Fate {
    let mut state = shared.state.lock().expect("the proxy");
    match &mut state.rule {
        Rule::Cut { what, after, times } if path.contains(&**what) && *times > 0 && passed + count > *after => {
            *times -= 1;
            Fate::Cut(*after - passed)
        }
        Rule::Hold { what, after } if path.contains(&**what) && passed + count > *after => Fate::Hold(*after - passed),
        Rule::Alter { what } if path.contains(&**what) && passed == 0 => Fate::Alter,
        _ => Fate::Pass,
    }
}

/// Lines up to the empty one; none where the connection ended.
fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        match reader.read_line(&mut head) {
            Ok(0) | Err(_) => return None,
            Ok(_) if head[before..].trim().is_empty() => return Some(head),
            Ok(_) => {}
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn length(head: &str) -> u64 {
    assert!(header(head, "transfer-encoding").is_none(), "the proxy knows lengths only: {head}");
    header(head, "content-length").map_or(0, |length| length.parse().expect("a length"))
}

fn request(head: &str) -> Request {
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let from = header(head, "range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    Request { method, path, from }
}
