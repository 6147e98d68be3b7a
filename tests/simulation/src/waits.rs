//! Readers that want to be sure, and questions for outcomes: what comes of them is held against
//! what anybody was told before.
//!
//! * A linearizable reader must begin behind every commit that any node acknowledged before it
//!   came.
//! * An outcome is final: what was told not to have committed must never be there, on any node, and
//!   what was told to have committed must be there at the end.

use std::collections::BTreeMap;

use quorate_cluster::OutcomeError;
use quorate_cluster::replica::Input;
use quorate_cluster::{FreshError, Freshness};
use quorate_engine::{Index, Outcome, TransactionId};

use crate::clients::{Fate, History};
use crate::rng::Rng;

/// How long readers and questions wait, ms.
const LIMIT_MS: u64 = 500;

/// All of them, of a run.
#[derive(Default)]
pub(crate) struct Waits {
    /// The newest index that was acknowledged anywhere.
    newest: Index,
    tokens: u64,
    /// What was acknowledged when each reader came, by its token.
    readers: BTreeMap<u64, Index>,
    /// What was asked, by the id of the question.
    questions: BTreeMap<TransactionId, TransactionId>,
    /// What was told of whom.
    told: BTreeMap<TransactionId, Outcome>,
}

impl Waits {
    /// A commit was acknowledged.
    pub(crate) fn acknowledged(&mut self, index: Index) {
        self.newest = self.newest.max(index);
    }

    /// A reader comes.
    pub(crate) fn read(&mut self) -> Input {
        self.tokens += 1;
        self.readers.insert(self.tokens, self.newest);
        let freshness = Freshness::Linearizable;
        Input::Fresh { token: self.tokens, freshness, limit_ms: LIMIT_MS }
    }

    /// Somebody asks what became of a transaction of the past. `id` is the question's own.
    pub(crate) fn ask(
        &mut self,
        rng: &mut Rng,
        history: &History,
        id: TransactionId,
    ) -> Option<Input> {
        let wanted = history.any_transaction(rng)?;
        self.questions.insert(id, wanted);
        Some(Input::Outcome { id, wanted, limit_ms: LIMIT_MS })
    }

    /// A reader was answered.
    ///
    /// # Errors
    /// It would miss what was acknowledged before it came.
    pub(crate) fn read_answered(
        &mut self,
        token: u64,
        result: &Result<Index, FreshError>,
    ) -> Result<(), String> {
        let floor = self.readers.remove(&token);
        let floor = floor.ok_or(format!("reader {token} was answered and did not wait"))?;
        match result {
            Ok(visible) if *visible < floor => {
                Err(format!("a fresh read begins at {visible:?}, after {floor:?} was acknowledged"))
            }
            _ => Ok(()),
        }
    }

    /// A question was answered.
    ///
    /// # Errors
    /// Another answer was given before, or it says nothing.
    pub(crate) fn outcome_answered(
        &mut self,
        id: TransactionId,
        result: &Result<Outcome, OutcomeError>,
    ) -> Result<(), String> {
        let wanted = self.questions.remove(&id).ok_or(format!("{id:?} was never asked"))?;
        let outcome = match result {
            Err(_) | Ok(Outcome::Forgotten) => return Ok(()),
            Ok(Outcome::Unknown) => return Err(format!("an answer for {wanted:?} says nothing")),
            Ok(outcome) => *outcome,
        };
        match self.told.insert(wanted, outcome) {
            Some(before) if before != outcome => {
                Err(format!("{wanted:?} was {before:?}, and is {outcome:?} now"))
            }
            _ => Ok(()),
        }
    }

    /// Makes what was told part of what must be true at the end.
    ///
    /// # Errors
    /// It contradicts what the transaction's own caller heard.
    pub(crate) fn settle(&self, history: &mut History) -> Result<(), String> {
        for (id, outcome) in &self.told {
            let (committed, contradiction) = match outcome {
                Outcome::Committed(index) => {
                    (Some(*index), history.fate(*id) == Some(&Fate::Refused))
                }
                _ => (None, matches!(history.fate(*id), Some(Fate::Acknowledged(_)))),
            };
            if contradiction {
                let fate = history.fate(*id);
                return Err(format!(
                    "{id:?} was told to be {outcome:?}, its caller heard {fate:?}"
                ));
            }
            history.settled(*id, committed);
        }
        Ok(())
    }
}
