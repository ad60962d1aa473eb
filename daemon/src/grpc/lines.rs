//! Lines of the log, for who asks the node for them.

use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use recurve_proto::v1;
use tonic::Status;
use tracing::Level;

use crate::log::{Line, Log};
use crate::node::Node;

/// Lines in one message.
const BATCH: usize = 256;

struct Reading {
    node: Arc<Node>,
    log: Log,
    request: v1::LogsRequest,
    after: u64,
    /// What was found and is not sent yet.
    found: Vec<Arc<Line>>,
    lost: u64,
    begun: bool,
}

/// The lines that are asked for; with `follow` also those that come, until the node stops.
pub(super) fn of(
    node: Arc<Node>,
    log: Log,
    request: v1::LogsRequest,
) -> impl Stream<Item = Result<v1::LogsResponse, Status>> + Send {
    let reading = Reading { node, log, after: request.after, request, found: Vec::new(), lost: 0, begun: false };
    unfold(reading, |mut reading| async move {
        let mut news = reading.log.ring().news();
        loop {
            news.borrow_and_update();
            reading.look();
            if let Some(message) = reading.message() {
                return Some((Ok(message), reading));
            }
            if !reading.request.follow {
                return None;
            }
            tokio::select! {
                changed = news.changed() => changed.ok()?,
                () = reading.node.stopping() => return None,
            }
        }
    })
}

impl Reading {
    fn look(&mut self) {
        if !self.found.is_empty() {
            return;
        }
        let (most, text, id) = (level(self.request.level()), &self.request.contains, &self.request.request_id);
        let wanted = |line: &Line| {
            most.is_none_or(|most| line.level <= most)
                && (text.is_empty() || line.contains(text))
                && (id.is_empty() || line.fields.get("request").is_some_and(|request| request == id))
        };
        let found = self.log.ring().after(self.after, wanted);
        self.after = self.after.max(found.last);
        self.found = found.lines;
        // Who begins has asked for what there is.
        if self.begun || self.request.after > 0 {
            self.lost += found.lost;
        }
        let last = self.request.last as usize;
        if !self.begun && last > 0 {
            let surplus = self.found.len().saturating_sub(last);
            self.found.drain(..surplus);
        }
        self.begun = true;
    }

    fn message(&mut self) -> Option<v1::LogsResponse> {
        if self.found.is_empty() && self.lost == 0 {
            return None;
        }
        let some = self.found.len().min(BATCH);
        let lines = self.found.drain(..some).map(|line| message(&line)).collect();
        Some(v1::LogsResponse { lines, lost: std::mem::take(&mut self.lost) })
    }
}

fn level(level: v1::LogLevel) -> Option<Level> {
    Some(match level {
        v1::LogLevel::Unspecified => return None,
        v1::LogLevel::Error => Level::ERROR,
        v1::LogLevel::Warn => Level::WARN,
        v1::LogLevel::Info => Level::INFO,
        v1::LogLevel::Debug => Level::DEBUG,
        v1::LogLevel::Trace => Level::TRACE,
    })
}

fn message(line: &Line) -> v1::LogLine {
    let level = match line.level {
        Level::ERROR => v1::LogLevel::Error,
        Level::WARN => v1::LogLevel::Warn,
        Level::INFO => v1::LogLevel::Info,
        Level::DEBUG => v1::LogLevel::Debug,
        Level::TRACE => v1::LogLevel::Trace,
    };
    v1::LogLine {
        number: line.number,
        at: Some(line.at.into()),
        level: level.into(),
        target: line.target.to_owned(),
        message: line.message.clone(),
        fields: line.fields.clone(),
    }
}
