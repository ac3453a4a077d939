//! Dead man's switches: at a block time that its owner set, all orders of an account are cancelled, once.
//!
//! An owner that lives moves the time ahead before it comes. It must lie `MIN_SCHEDULE_MS` ahead of block time when it
//! is set, or there would be no time to do so.
//!
//! | queue | bound | beyond it |
//! | --- | --- | --- |
//! | switches that come due in a block | `MAX_SCHEDULED_PER_BLOCK` | the next block, oldest first |
//! | entries that they make in a block | a quarter of `MAX_ENTRIES_PER_INBOX` | the same |

use seawall_types::{AccountId, Refusal, TimeMs, limits};

use crate::{ladder::Event, ledger::Ledger, triggers::TriggerEnd};

/// Entries of a block that scheduled cancels may take: rescues of the same block ask for the others.
const MAX_SCHEDULED_ENTRIES: usize = limits::MAX_ENTRIES_PER_INBOX / 4;

// One account's cancels, one for each zone, always find room in a block that has none yet.
const _: () = assert!(limits::MAX_ZONES <= MAX_SCHEDULED_ENTRIES);

impl Ledger {
    pub(crate) fn check_schedule(&self, at: Option<TimeMs>) -> Result<(), Refusal> {
        let soonest = self.globals.time.0.saturating_add(limits::MIN_SCHEDULE_MS);
        if at.is_some_and(|at| at.0 < soonest) { Err(Refusal::ScheduledTooSoon) } else { Ok(()) }
    }

    pub(crate) fn schedule(&mut self, id: u32, at: Option<TimeMs>) {
        let before = core::mem::replace(&mut self.account_mut(id).cancel_at, at);
        self.reschedule(id, before, at);
    }

    /// Moves an account in what is derived.
    pub(crate) fn reschedule(&mut self, id: u32, before: Option<TimeMs>, after: Option<TimeMs>) {
        if let Some(before) = before {
            self.scheduled.remove(&(before, id));
        }
        if let Some(after) = after {
            self.scheduled.insert((after, id));
        }
    }

    /// Carries out the scheduled cancels whose time has come, the oldest first. Returns how many. A chain calls this
    /// after it settled outcomes and before rescues: a switch that is set anew in the block of its time is late.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn run_scheduled_cancels(&mut self) -> u64 {
        let now = self.globals.time;
        let due = self.scheduled.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<u32> = due.take(limits::MAX_SCHEDULED_PER_BLOCK).map(|(_, id)| *id).collect();
        let mut done = 0;
        for id in due {
            let account = AccountId(u64::from(id));
            let zones = self.leaving_by_zone(id, |_| true);
            if !self.has_room(zones.len(), MAX_SCHEDULED_ENTRIES) {
                break;
            }
            self.schedule(id, None);
            let orders = self.cancel_all(account, None, false, zones, TriggerEnd::Scheduled);
            self.push_event(Event::ScheduledCancel { account, orders });
            done += 1;
        }
        done
    }
}
