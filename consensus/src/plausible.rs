//! What a message must look like before the rules see it. Everything here is about shape: a message
//! that no correct node could have sent is dropped, so that arithmetic and asserts behind it are
//! safe whatever the bytes were.

use crate::types::{Body, Entry, EntryIndex, Message, MessageBody, Term};

/// Terms and entry indexes above this are nonsense; it leaves room to count on without overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Whether a correct node could have sent this message.
pub(crate) fn is_plausible(message: &Message) -> bool {
    if message.term.0 == 0 || message.term.0 > NUMBER_MAX {
        return false;
    }
    match &message.body {
        MessageBody::PreVote { last, last_term, .. }
        | MessageBody::Vote { last, last_term, .. } => {
            // A log never ends in a term that its owner has not reached.
            last.0 <= NUMBER_MAX && *last_term < message.term && position(*last, *last_term)
        }
        MessageBody::Append { previous, previous_term, entries, commit, durable, .. } => {
            previous.0 <= NUMBER_MAX - entries.len() as u64
                && commit.0 <= NUMBER_MAX
                && durable.0 <= NUMBER_MAX
                && position(*previous, *previous_term)
                && *previous_term <= message.term
                && are_entries(*previous, *previous_term, message.term, entries)
        }
        MessageBody::AppendAnswer { matched, matched_term, .. } => {
            matched.0 <= NUMBER_MAX && matched_term.0 <= NUMBER_MAX
        }
        MessageBody::PreVoteAnswer { .. }
        | MessageBody::VoteAnswer { .. }
        | MessageBody::TimeoutNow => true,
    }
}

/// Whether the entries are dense behind `previous`, of terms that never fall and never exceed
/// `term_max`, each valid by itself.
pub(crate) fn are_entries(
    previous: EntryIndex,
    previous_term: Term,
    term_max: Term,
    entries: &[Entry],
) -> bool {
    let mut index = previous;
    let mut term = previous_term;
    for entry in entries {
        if index.0 >= NUMBER_MAX || entry.index != index.next() {
            return false;
        }
        if entry.term < term || entry.term.0 == 0 || entry.term > term_max {
            return false;
        }
        if !is_body(&entry.body) {
            return false;
        }
        index = entry.index;
        term = entry.term;
    }
    true
}

/// Whether the window holds at least one transaction and its indexes do not overflow.
pub(crate) fn is_window(first_index: u64, count: u32) -> bool {
    count > 0 && first_index.checked_add(u64::from(count)).is_some()
}

fn is_body(body: &Body) -> bool {
    match body {
        Body::Noop => true,
        Body::Window { first_index, count, .. } => is_window(*first_index, *count),
        Body::Config(config) => config.validate().is_ok(),
    }
}

/// The place before the first entry has term 0, and no other has.
fn position(index: EntryIndex, term: Term) -> bool {
    (index.0 == 0) == (term.0 == 0)
}
