//! What a key means.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::fleet::Fleet;
use super::sort::{COLUMNS, Column};

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    /// Wait, as other programs do at Ctrl-Z.
    Suspend,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    /// Sort by the column before, after, or by this one.
    SortBefore,
    SortAfter,
    SortBy(Column),
    Reverse,
    /// Write a filter, and what is written.
    Find,
    Type(char),
    Erase,
    Found,
    /// Open the page of the marked device, and leave it again.
    Open,
    Back,
    Help,
    /// Stand still, or go on.
    Pause,
}

/// What a key means as the view is; none where it means nothing.
pub(crate) fn action(key: KeyEvent, fleet: &Fleet) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return Some(Action::Quit),
        KeyCode::Char('z') if control => return Some(Action::Suspend),
        KeyCode::Char(_) if control || key.modifiers.contains(KeyModifiers::ALT) => return None,
        _ => {}
    }
    if fleet.typing { typing(key.code) } else { looking(key.code, fleet) }
}

fn typing(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char(character) => Some(Action::Type(character)),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Enter => Some(Action::Found),
        KeyCode::Esc => Some(Action::Back),
        KeyCode::Up => Some(Action::Up),
        KeyCode::Down => Some(Action::Down),
        _ => None,
    }
}

fn looking(code: KeyCode, fleet: &Fleet) -> Option<Action> {
    let everywhere = match code {
        KeyCode::Char('q') => Some(Action::Quit),
        KeyCode::Char('?') => Some(Action::Help),
        KeyCode::Char(' ') => Some(Action::Pause),
        KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => Some(Action::Back),
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Down),
        KeyCode::PageUp => Some(Action::PageUp),
        KeyCode::PageDown => Some(Action::PageDown),
        KeyCode::Home | KeyCode::Char('g') => Some(Action::First),
        KeyCode::End | KeyCode::Char('G') => Some(Action::Last),
        _ => None,
    };
    if everywhere.is_some() || fleet.help || fleet.page().is_some() {
        return everywhere;
    }
    match code {
        KeyCode::Char('<') => Some(Action::SortBefore),
        KeyCode::Char('>') => Some(Action::SortAfter),
        KeyCode::Char('r') => Some(Action::Reverse),
        KeyCode::Char('/') => Some(Action::Find),
        KeyCode::Enter | KeyCode::Right => Some(Action::Open),
        KeyCode::Char(letter) => {
            COLUMNS.iter().find(|about| about.key == letter).map(|about| Action::SortBy(about.column))
        }
        _ => None,
    }
}
