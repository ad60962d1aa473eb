//! The live view of a fleet. What is known (`device`, `rates`), what is shown of it (`fleet`, `sort`) and what a key does
//! (`keys`) are pure functions and plain data; `draw` and `page` put them into a buffer; `terminal` and `follow` alone know the
//! terminal, the clock and the devices.

pub(crate) mod device;
pub(crate) mod draw;
pub(crate) mod fleet;
pub(crate) mod follow;
mod help;
pub(crate) mod keys;
pub(crate) mod once;
mod page;
pub(crate) mod rates;
pub(crate) mod sort;
pub(crate) mod terminal;
pub(crate) mod words;

#[cfg(test)]
mod tests;
