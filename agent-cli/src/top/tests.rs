//! Whole screens, and what keys do to them.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use recurve_proto::v1::{Histogram, LogLevel, LogLine, NodeState, Temperature, WatchNodeResponse};

use super::device::{Device, News};
use super::draw::{Light, draw, height};
use super::fleet::{Fleet, Next};
use super::keys;
use super::rates::WINDOW;

const NOW: Duration = WINDOW.saturating_add(Duration::from_secs(45));

fn told(instance: &str, second: u64, speed: u64) -> WatchNodeResponse {
    let wire = |seconds| prost_types::Duration { seconds, nanos: 0 };
    WatchNodeResponse {
        state: Some(NodeState {
            instance: instance.to_owned(),
            serving: true,
            bundle: "sha256:8e0bf7e4".to_owned(),
            uptime: Some(wire(7_200)),
            version: "0.1.0".to_owned(),
            ..NodeState::default()
        }),
        model: "gemma-2b-it".to_owned(),
        kernels: "recurve".to_owned(),
        active_rows: 2,
        rows: 4,
        waiting: 1,
        queue: 16,
        prefill_backlog: 120,
        tokens_in: 1_000 + second * speed * 3,
        tokens_out: 500 + second * speed,
        requests: 40 + second,
        // Up to 80 ms, 100 ms and 250 ms.
        time_to_first_token: Some(Histogram { counts: vec![0, 0, 0, 0, 0, 0, second, 0, second / 4], sum: 0.0 }),
        time_per_output_token: Some(Histogram { counts: vec![0, second], sum: 0.0 }),
        cpu: 0.42,
        memory_used: 3 << 30,
        memory: 8 << 30,
        process_memory: 2 << 30,
        temperatures: vec![
            Temperature { sensor: "cpu".to_owned(), celsius: 61.25 },
            Temperature { sensor: "nvme".to_owned(), celsius: 40.0 },
        ],
        ..WatchNodeResponse::default()
    }
}

/// Four devices: one that is well, one that is hot and fails some requests, one that drains, one out of reach.
fn fleet() -> Fleet {
    let device = |name: &str, last: u8| Device::new(name.to_owned(), format!("192.0.2.{last}:50051"));
    let devices = vec![device("gw-south", 1), device("gw-north", 2), device("depot", 3), device("lab", 4)];
    let mut fleet = Fleet::new(devices);
    for second in 0..=40 {
        let at = WINDOW + Duration::from_secs(second);
        let mut tell = |place, told| fleet.take(place, at, News::Told(Box::new(told)));
        tell(0, told("a", second, 12));
        let alarms = vec!["throttled".to_owned(), "under-voltage".to_owned()];
        tell(1, WatchNodeResponse { alarms, errors: second / 10, ..told("b", second, 30) });
        tell(2, WatchNodeResponse { draining: true, waiting: 0, active_rows: 1, ..told("c", second, 5) });
    }
    let why = "nothing listens there".to_owned();
    let away = News::Away { clock: "13:29:20".to_owned(), why, refuses: false };
    fleet.take(3, WINDOW + Duration::from_secs(5), away);
    fleet
}

fn light() -> Light {
    Light { now: NOW, clock: "13:30:01".to_owned(), colour: false }
}

fn screen(fleet: &Fleet, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(fleet, &light(), frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    let mut rows: Vec<String> = (0..height).map(row).collect();
    // Empty lines between the last device and the keys are counted, not written.
    let last = rows.pop().unwrap();
    while rows.last().is_some_and(String::is_empty) {
        rows.pop();
    }
    rows.push(last);
    rows
}

#[track_caller]
fn assert_screen(fleet: &Fleet, (width, height): (u16, u16), expected: &str) {
    let shown = screen(fleet, width, height).join("\n");
    assert_eq!(shown.trim_end(), expected.trim_matches('\n'), "\n{shown}\n");
}

fn press(fleet: &mut Fleet, keys: &str) -> Next {
    let mut next = Next::Go;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        };
        if let Some(action) = keys::action(KeyEvent::new(code, KeyModifiers::NONE), fleet) {
            next = fleet.act(action, 20);
        }
    }
    next
}

/// The names in the table, from the top.
fn names(fleet: &Fleet) -> Vec<String> {
    fleet.listed(fleet.all()).into_iter().map(|row| row.name).collect()
}

#[test]
fn a_fleet_at_80_by_24() {
    assert_screen(
        &fleet(),
        (80, 24),
        "
2 of 4 up, 2 down   3 alarms   47 tok/s made, 141 read                  13:30:01
first token p50 72ms p95 215ms   per token p50 18ms   queue 2   rows 5/12
  name         state        tok/s  ttft ttft95 queue  rows temp alarms
> depot        draining       5.0  72ms  220ms  0/16   1/4  61°
  gw-north     serving         30  72ms  220ms  1/16   2/4  61° throttled, unde…
  gw-south     serving         12  72ms  220ms  1/16   2/4  61°
  lab          out of reach 40 s: nothing listens there
q quit  ? help  / find  Enter open  < > sort                        by name  1/4
",
    );
}

#[test]
fn a_fleet_at_200_by_50() {
    assert_screen(&fleet(), (200, 50), "
2 of 4 up, 2 down   3 alarms   47 tok/s made, 141 read                                                                                                                                          13:30:01
first token p50 72ms p95 215ms   per token p50 18ms   queue 2   rows 5/12
  name         state        model        tok/s read/s  ttft ttft95  tpot queue  rows temp  cpu  mem alarms
> depot        draining     gemma-2b-it    5.0     15  72ms  220ms  18ms  0/16   1/4  61°  42%  38%
  gw-north     serving      gemma-2b-it     30     90  72ms  220ms  18ms  1/16   2/4  61°  42%  38% throttled, under-voltage, errors 10%
  gw-south     serving      gemma-2b-it     12     36  72ms  220ms  18ms  1/16   2/4  61°  42%  38%
  lab          out of reach              40 s: nothing listens there
q quit  ? help  / find  Enter open  < > sort                                                                                                                                                by name  1/4
");
}

#[test]
fn a_fleet_at_40_by_10() {
    assert_screen(
        &fleet(),
        (40, 10),
        "
2 of 4 up, 2 down   3 alarms    13:30:01
first token p50 72ms p95 215ms   per to…
  name         state        tok/s  ttft
> depot        draining       5.0  72ms
  gw-north     serving         30  72ms
  gw-south     serving         12  72ms
  lab          out of reach 40 s: nothi…
q quit  ? help  / find  En  by name  1/4
",
    );
}

#[test]
fn the_page_of_a_device() {
    let mut fleet = fleet();
    let line = LogLine {
        number: 7,
        level: LogLevel::Warn.into(),
        target: "recurved::engine".to_owned(),
        message: "a step took long".to_owned(),
        ..LogLine::default()
    };
    fleet.take(1, NOW, News::Logged(vec![line]));
    // Without a moment, as the hour depends on where one is.
    press(&mut fleet, "j\n");
    assert_screen(
        &fleet,
        (80, 24),
        "
gw-north  serving                                                       13:30:01
address       192.0.2.2:50051
recurved      0.1.0, up for 2 h
model         gemma-2b-it, kernels recurve
tokens/s      30 made, 90 read
first token   p50 72ms, p95 220ms, p99 250ms of 50 in 5 minutes
per token     p50 18ms, p95 24ms, p99 25ms of 40 in 5 minutes
work          rows 2/4, queue 1/16, 120 tokens of prompts to read
since start   80 requests, 4 failed, 1700 tokens made, 4600 read
machine       cpu 42%, memory 3.00 GiB of 8.00 GiB, recurved 2.00 GiB
temperatures  cpu 61.2°, nvme 40.0°
alarms        throttled, under-voltage, errors 10%
5 minutes                                            █████ 30 tok/s at most
                                                     █████ 73ms ttft at most
log, warnings and errors
? WARN  recurved::engine: a step took long
Esc back  up down another device  space stand still  q quit
",
    );
}

#[test]
fn the_page_of_a_device_that_is_out_of_reach() {
    let mut fleet = fleet();
    press(&mut fleet, "jjj\n");
    assert_eq!(fleet.page(), Some(3));
    press(&mut fleet, "k");
    assert_eq!(fleet.page(), Some(0));
    press(&mut fleet, "\x1bG\n");
    assert_screen(
        &fleet,
        (80, 24),
        "
lab  out of reach                                                       13:30:01
address       192.0.2.4:50051
since 13:29:20 (40 s): nothing listens there
log, warnings and errors
nothing
Esc back  up down another device  space stand still  q quit
",
    );
}

#[test]
fn keys_and_columns_are_explained() {
    let mut fleet = fleet();
    press(&mut fleet, "?");
    assert_screen(
        &fleet,
        (80, 24),
        "
agent-cli top: keys                                                     13:30:01

up down j k another device                 n name   as the inventory has it
PgUp PgDn   a screen further               s state  the worst first
g G         the first, the last            m model  that is served
Enter       all about a device             o tok/s  tokens made a second
Esc         back; show all again           i read/s prompt tokens read a second
/           find name, model, state, alarm f ttft   first token, median
< >         sort by the column beside      F ttft95 95 of 100 come sooner
n s m o …   sort by that column (right)    t tpot   time per token, median
r           the other way round            w queue  that wait / that may
space       stand still, go on             a rows   computed / at most
?           this page                      h temp   hottest sensor, Celsius
q Ctrl-C    quit                           c cpu    share of all cores
Ctrl-Z      suspend; fg goes on            e mem    share of its memory
                                           l alarms most of them first

Times are of the last 5 minutes, tokens a second of the last 5 seconds.
Those above the table are of all devices together.

",
    );
    press(&mut fleet, "\x1b");
    assert!(!fleet.help);
}

#[test]
fn devices_are_in_the_order_of_any_column() {
    let mut fleet = fleet();
    for (keys, expected) in [
        ("", ["depot", "gw-north", "gw-south", "lab"]),
        ("r", ["lab", "gw-south", "gw-north", "depot"]),
        ("s", ["lab", "depot", "gw-north", "gw-south"]),
        ("o", ["gw-north", "gw-south", "depot", "lab"]),
        // What is not known comes last, whichever way round.
        ("r", ["depot", "gw-south", "gw-north", "lab"]),
        ("l", ["gw-north", "lab", "depot", "gw-south"]),
        ("w", ["gw-north", "gw-south", "depot", "lab"]),
    ] {
        press(&mut fleet, keys);
        assert_eq!(names(&fleet), expected, "{keys:?}");
    }
    press(&mut fleet, "n>");
    assert_eq!(fleet.sort.by.about().title, "state");
    press(&mut fleet, "<<");
    assert_eq!(fleet.sort.by.about().title, "alarms");
}

#[test]
fn a_filter_is_any_of_name_model_state_and_alarm() {
    let mut fleet = fleet();
    for (text, expected) in [
        ("GW-", &["gw-north", "gw-south"][..]),
        ("gemma", &["depot", "gw-north", "gw-south"]),
        ("out of", &["lab"]),
        ("volt", &["gw-north"]),
        ("q", &[]),
    ] {
        press(&mut fleet, "/");
        // Letters that are keys elsewhere are letters here.
        assert_eq!(press(&mut fleet, text), Next::Go);
        assert_eq!(names(&fleet), expected, "{text:?}");
        press(&mut fleet, "\n");
        assert!(!fleet.typing);
    }
    press(&mut fleet, "\x1b");
    assert_eq!(names(&fleet).len(), 4);
    press(&mut fleet, "/gw-no\x08\x08");
    assert_eq!(fleet.filter, "gw-");
    let shown = screen(&fleet, 80, 24);
    assert!(shown.last().unwrap().starts_with("find: gw-_"), "{shown:?}");
}

#[test]
fn a_paused_view_stands_still_and_catches_up() {
    let mut fleet = fleet();
    press(&mut fleet, " ");
    let before = screen(&fleet, 80, 24);
    assert!(before[0].contains("PAUSED"), "{before:?}");
    let away = News::Away { clock: String::new(), why: "gone".to_owned(), refuses: false };
    fleet.take(0, NOW, away);
    assert_eq!(screen(&fleet, 80, 24), before);
    press(&mut fleet, " ");
    let after = screen(&fleet, 80, 24);
    assert!(after.iter().any(|line| line.contains("gw-south") && line.contains("gone")), "{after:?}");
}

#[test]
fn quitting_is_possible_everywhere() {
    let mut fleet = fleet();
    assert_eq!(press(&mut fleet, "q"), Next::Quit);
    assert_eq!(press(&mut fleet, "?q"), Next::Quit);
    assert_eq!(press(&mut fleet, "\x1b\nq"), Next::Quit);
    press(&mut fleet, "\x1b/");
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(keys::action(control_c, &fleet).map(|action| fleet.act(action, 20)), Some(Next::Quit));
}

#[test]
fn the_marked_line_is_always_on_the_screen() {
    let devices = (0..50).map(|number| Device::new(format!("gw-{number:02}"), String::new())).collect();
    let mut fleet = Fleet::new(devices);
    assert!(screen(&fleet, 80, 24)[3].starts_with("> gw-00"));
    for _ in 0..60 {
        press(&mut fleet, "j");
        let marked = names(&fleet)[fleet.marked(&fleet.listed(fleet.all()))].clone();
        assert!(screen(&fleet, 80, 24).iter().any(|line| line.starts_with(&format!("> {marked}"))), "{marked}");
    }
    assert!(screen(&fleet, 80, 24)[22].starts_with("> gw-49"));
    press(&mut fleet, "g");
    assert!(screen(&fleet, 80, 24)[3].starts_with("> gw-00"));
}

#[test]
fn no_size_is_too_small() {
    let mut fleet = fleet();
    for keys in ["", "\n", "\x1b?", "\x1b\x1b/x"] {
        press(&mut fleet, keys);
        for (width, height) in [(1, 1), (3, 2), (10, 4), (39, 5), (300, 1), (2, 100)] {
            assert!(!screen(&fleet, width, height).is_empty());
        }
    }
    assert_eq!(height(Rect::new(0, 0, 80, 2)), 1);
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let fleet = fleet();
    let styles = |colour| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let light = Light { colour, ..light() };
        terminal.draw(|frame| draw(&fleet, &light, frame.area(), frame.buffer_mut())).unwrap();
        let cells = terminal.backend().buffer().content().to_vec();
        let coloured = cells.iter().any(|cell| cell.fg != Color::Reset);
        (coloured, cells.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)))
    };
    assert_eq!((styles(true), styles(false)), ((true, true), (false, true)));
}
