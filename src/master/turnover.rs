//! What the effects do for a reload and an upgrade: prepare another blueprint and put it in force, start another master and
//! let it have everything, take everything over from one.

use std::path::PathBuf;
use std::sync::Arc;

use super::effects::{Effects, Seat};
use super::estate::{self, Invocation, Will};
use super::machine::Input;
use crate::listen::Listener;
use crate::log;
use crate::site::guard;
use crate::sys::pid_file::PidFile;

impl Effects {
    /// Reads the configuration, and opens what is new in it.
    pub(super) fn prepare(&mut self, generation: u32) -> Input {
        let panicked = || Err("reading the configuration panicked; the lines before say where".to_owned());
        match guard(|| (self.renew)(&self.blueprint)).unwrap_or_else(panicked) {
            Ok(blueprint) => {
                let plan = blueprint.plan();
                self.coming = Some((generation, blueprint));
                Input::Prepared { generation, plan }
            }
            Err(error) => Input::NotPrepared { generation, error },
        }
    }

    /// What was prepared is in force.
    pub(super) fn commit(&mut self) {
        let Some((generation, blueprint)) = self.coming.take() else { return };
        let before = std::mem::replace(&mut self.blueprint, blueprint);
        self.generation = generation;
        self.workers.note_listeners(before.listens_within(&self.blueprint), |of| of != generation);
        log::error::switch(self.blueprint.error_log.clone(), *self.blueprint.config.log.level);
        let same_status = before.status_listeners.len() == self.blueprint.status_listeners.len()
            && before.status_listeners.iter().zip(&self.blueprint.status_listeners).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same_status {
            self.replace_reporter();
        }
        let gone = before.listeners.iter().filter(|listener| !self.blueprint.has(listener));
        gone.for_each(|listener| let_go(listener));
    }

    /// What was prepared is not to be.
    pub(super) fn abandon(&mut self) {
        let Some((generation, blueprint)) = self.coming.take() else { return };
        self.workers.note_listeners(blueprint.listens_within(&self.blueprint), |of| of == generation);
        self.blueprint.listeners.iter().for_each(|listener| listener.expect_tls(self.blueprint.entrance.tls.is_some()));
        let gone = blueprint.listeners.iter().filter(|listener| !self.blueprint.has(listener));
        gone.for_each(|listener| let_go(listener));
    }

    pub(super) fn upgrade(&mut self, program: Option<PathBuf>) -> Input {
        let invocation = Invocation {
            program: program.unwrap_or_else(|| self.invocation.program.clone()),
            args: self.invocation.args.clone(),
        };
        let Some(handover) = &self.handover else {
            return Input::HeirNotStarted { error: "this is no master".to_owned() };
        };
        let will = Will {
            listeners: &self.blueprint.listeners,
            status_listeners: &self.blueprint.status_listeners,
            handover,
            keys: self.blueprint.keys,
        };
        match will.execute(&invocation) {
            Ok((pid, heir)) => {
                self.heir = Some(heir);
                Input::HeirStarted { pid }
            }
            Err(cause) => {
                Input::HeirNotStarted { error: format!("cannot run {}: {cause}", invocation.program.display()) }
            }
        }
    }

    /// Everything is the new master's: no file is removed, no queue touched.
    pub(super) fn hand_over(&mut self) {
        let listeners = self.blueprint.listeners.iter().chain(&self.seat.control_listener);
        listeners.for_each(|listener| listener.disown());
        self.blueprint.listeners.clear();
        self.blueprint.status_listeners.clear();
        let Seat { pid_file, control_listener: _ } = std::mem::take(&mut self.seat);
        pid_file.into_iter().for_each(PidFile::release);
        self.handed_over = true;
        self.reporters.leave();
        if let Some(heir) = self.heir.take() {
            heir.let_go();
        }
    }

    /// Everything is this master's from now on.
    pub(super) fn take_over(&mut self) {
        let Some(link) = self.predecessor.take() else { return };
        estate::claim(&link);
        self.blueprint.listeners.iter().for_each(|listener| listener.adopt());
        self.seat = (self.take_seat)(&self.blueprint);
        estate::confirm(&link);
        // The reporter is not to have it.
        drop(link);
        self.tend_reporter();
    }
}

/// What waits for its request in the kernel comes out, for whoever accepts there last.
pub(super) fn let_go(listener: &Listener) {
    if let Err(cause) = listener.stop_deferring() {
        ::log::error!("{listener}: cannot clear TCP_DEFER_ACCEPT: {cause}; waiting clients may be lost");
    }
}
