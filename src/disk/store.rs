//! The store: deliveries on the message log. Takes what happened, writes it down, and only then says what
//! follows.
//!
//! Owned by one task. After [`Store::commit`] has returned, what was admitted before it is on disk, and what
//! [`Store::dispatch`] gives may be sent. The store reads no clock and sends nothing itself.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::files::Files;
use super::log::{For, Log, LogError, LogSize, Place};
use super::record::{self, Record, Stored};
use super::recover::{self, Cut, OpenError};
use super::segment;
use crate::delivery::{
    Admitted, Bounds, Change, DeadLetter, Deliveries, Full, GivenUp, InstanceId, NewMessage, Outgoing,
    QueueDepth, ReceiverNo, Seq,
};
use crate::limits::{LABEL_BYTES_MAX, MSG_ID_BYTES_MAX};
use crate::policy::quarantine::{Hold, Quarantine};

/// Messages carried forward between two commits, in bytes: enough to keep up, and short enough to go unnoticed.
const CARRIED_BYTES_PER_STEP: usize = 1 << 20;

/// An id with its sender, written down, in bytes.
const ID_RECORD_BYTES_MAX: usize = 64 + MSG_ID_BYTES_MAX + LABEL_BYTES_MAX;

/// How a store is set up.
#[derive(Debug, Clone, Copy)]
pub struct StoreConfig {
    /// What may be kept.
    pub bounds: Bounds,
    /// One segment, in bytes; at least the largest message.
    pub segment_bytes: u64,
    /// Messages kept in memory, so that they need not be read again, in bytes.
    pub cache_bytes_max: usize,
}

/// Why a message is not stored. The publisher is told at once, and nothing is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// A bound of the configuration.
    #[error(transparent)]
    Full(#[from] Full),
    /// The disk has no space for another segment.
    #[error("the disk is full")]
    Disk,
    /// Larger than a segment.
    #[error("the message is larger than the store takes")]
    Large,
}

/// What opening a store found.
#[derive(Debug)]
pub struct Opened {
    /// Messages on their way, dead letters included.
    pub messages: usize,
    /// Whether the broker had stopped in order.
    pub was_closed: bool,
    /// The torn end that was cut off.
    pub cut: Option<Cut>,
}

/// What a delivery carries.
#[derive(Debug)]
pub struct Content {
    /// The verified sender.
    pub sender: Arc<str>,
    /// The message name.
    pub name: Arc<str>,
    /// Header lines, made safe.
    pub headers: Box<[u8]>,
    /// The payload.
    pub payload: Box<[u8]>,
    id: Option<Arc<str>>,
}

impl Content {
    fn bytes(&self) -> usize {
        self.headers.len() + self.payload.len() + self.name.len() + 64
    }
}

/// A segment to be prepared, by whoever has time for it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted(segment::Header);

/// A prepared segment.
#[derive(Debug)]
pub struct Made<F>(segment::Header, F);

impl Wanted {
    /// Prepares it: takes as long as writing a segment takes.
    pub fn make<F: Files>(self, files: &F) -> io::Result<Made<F::File>> {
        Ok(Made(self.0, segment::make(files, self.0)?))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Store<F: Files> {
    log: Log<F>,
    deliveries: Deliveries,
    cache: Cache,
    /// Changes that wait for room on the disk.
    unwritten: VecDeque<Change>,
    must_sync: bool,
    /// Whether the log says that it was opened: the next start must know of this life.
    is_opening_written: bool,
}

impl<F: Files> Store<F> {
    /// Opens the store in a folder, or begins one. `store_if_new` should be random. Returns after all that was
    /// read is on disk.
    pub fn open(
        files: F,
        config: StoreConfig,
        store_if_new: u64,
        now_ms: u64,
    ) -> Result<(Self, Opened), OpenError> {
        let mut deliveries = Deliveries::new(config.bounds);
        let mut was_closed = true;
        let (log, cut) = recover::open(
            files,
            config.segment_bytes,
            store_if_new,
            |record, place, index| {
                match record {
                    Record::Opened(seq) => {
                        if !was_closed {
                            deliveries.recover_crash();
                        }
                        was_closed = false;
                        deliveries.recover_last_seq(seq);
                    }
                    Record::Closed => was_closed = true,
                    Record::Begun { last_seq, .. } => {
                        // The record that the log was opened may have gone with an older segment.
                        was_closed = false;
                        deliveries.recover_last_seq(last_seq);
                    }
                    Record::Removing(_) => {}
                    Record::Message(stored) => {
                        let Stored { kept, sender, id, .. } = *stored;
                        let (seq, stored_ms) = (kept.seq, kept.stored_ms);
                        index.place(seq, place);
                        deliveries.recover_message(kept);
                        if let Some(id) = id {
                            index.place_id(seq, place.segment);
                            deliveries.recover_id(sender, id, seq, stored_ms);
                        }
                    }
                    Record::Change(change) => deliveries.recover_change(change),
                    Record::Id {
                        sender,
                        id,
                        seq,
                        at_ms,
                    } => {
                        index.place_id(seq, place.segment);
                        deliveries.recover_id(sender, id, seq, at_ms);
                    }
                }
                for seq in deliveries.take_forgotten() {
                    index.release(seq);
                }
            },
        )?;
        if !was_closed {
            deliveries.recover_crash();
        }
        deliveries.recovered(now_ms);
        let mut store = Self {
            log,
            deliveries,
            cache: Cache::new(config.cache_bytes_max),
            unwritten: VecDeque::new(),
            must_sync: true,
            is_opening_written: false,
        };
        let opened = Opened {
            messages: store.deliveries.len(),
            was_closed,
            cut,
        };
        store
            .commit()
            .map_err(|LogError { verb, file, error }| OpenError::Io { verb, file, error })?;
        Ok((store, opened))
    }

    /// Whether a message must wait for the next segment: it would fit into one, and not into what there is.
    pub fn awaits_segment(&self, new: &NewMessage<'_>, headers: &[u8], payload: &[u8]) -> bool {
        let bytes = record_bytes(new, headers, payload);
        bytes <= self.log.record_bytes_max() && !self.log.has_room(bytes, For::Messages)
    }

    /// Takes a message in, or says why not. It is on disk after the next [`Store::commit`], and not before.
    pub fn publish(
        &mut self,
        new: &NewMessage<'_>,
        headers: Box<[u8]>,
        payload: Box<[u8]>,
        now_ms: u64,
    ) -> Result<Result<Admitted, NotStored>, LogError> {
        let bytes = record_bytes(new, &headers, &payload);
        if bytes > self.log.record_bytes_max() {
            return Ok(Err(NotStored::Large));
        }
        if !self.is_all_written() || !self.log.has_room(bytes, For::Messages) {
            return Ok(Err(NotStored::Disk));
        }
        let admitted = match self.deliveries.handle_publish(new, now_ms) {
            Ok(admitted) => admitted,
            Err(full) => return Ok(Err(full.into())),
        };
        let Admitted::New(seq) = admitted else {
            return Ok(Ok(admitted));
        };
        let content = Content {
            sender: Arc::clone(new.sender),
            name: Arc::clone(new.name),
            headers,
            payload,
            id: new.id.cloned(),
        };
        self.write_message(seq, &content)?;
        self.cache.insert(seq, Arc::new(content));
        self.must_sync = true;
        Ok(Ok(admitted))
    }

    /// Writes down all that happened. After it returns, what was admitted is on disk, and so are all changes but
    /// acknowledgements, which survive a kill of the process and cost an attempt more after a power cut.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.unwritten.extend(self.deliveries.take_changes());
        if !self.is_opening_written && self.log.has_room(32, For::Changes) {
            let record = Record::Opened(self.deliveries.last_seq());
            self.append(32, |out| record::put(out, &record))?;
            self.is_opening_written = true;
            self.must_sync = true;
        }
        while self.is_opening_written
            && let Some(&change) = self.unwritten.front()
        {
            if !self.log.has_room(64, For::Changes) {
                break;
            }
            self.append(64, |out| record::put(out, &Record::Change(change)))?;
            self.unwritten.pop_front();
            self.must_sync |= change.must_be_durable();
        }
        for seq in self.deliveries.take_forgotten() {
            self.log.release(seq);
            self.cache.remove(seq);
        }
        self.log.write_pending()?;
        if self.must_sync {
            self.log.sync()?;
            self.must_sync = false;
        }
        Ok(())
    }

    /// Gives what can be sent now to instances with room. To be called after a commit. Nothing is sent while there
    /// is no room to write down what came before: a crash would make an attempt look like the first.
    pub fn dispatch(
        &mut self,
        epoch: u64,
        now_ms: u64,
        listening: impl FnMut(&Arc<str>, &Arc<str>, &mut Vec<InstanceId>),
        out: &mut Vec<Outgoing>,
    ) {
        if self.is_all_written() {
            self.deliveries.dispatch(epoch, now_ms, listening, out);
        }
    }

    /// What a message carries, from memory or from disk; `None` if it is not held any more.
    pub fn content(&self, seq: Seq) -> io::Result<Option<Arc<Content>>> {
        if let Some(content) = self.cache.get(seq) {
            return Ok(Some(content));
        }
        let Some(Record::Message(stored)) = self.log.read(seq)? else {
            return Ok(None);
        };
        Ok(Some(Arc::new(Content {
            sender: stored.sender,
            name: stored.kept.name,
            headers: stored.headers,
            payload: stored.payload,
            id: stored.id,
        })))
    }

    /// Housekeeping between two commits: carries messages forward and removes segments that nobody needs. Says
    /// whether there is more to do.
    pub fn tidy(&mut self) -> Result<bool, LogError> {
        let mut carried_bytes = 0;
        while carried_bytes < CARRIED_BYTES_PER_STEP {
            let Some(seq) = self.log.next_to_carry() else {
                break;
            };
            let content = self.content(seq).map_err(|error| LogError {
                verb: "read",
                file: format!("message {seq}"),
                error,
            })?;
            let Some(content) =
                content.filter(|content| self.log.has_room(content.bytes() + 4096, For::Changes))
            else {
                break;
            };
            carried_bytes += content.bytes();
            self.write_message(seq, &content)?;
        }
        self.carry_ids()?;
        let removed = self.log.remove_oldest(self.deliveries.last_seq())?;
        if carried_bytes == 0 && !removed {
            self.log.mark()?;
        }
        Ok(carried_bytes > 0 || removed)
    }

    /// A segment that should be prepared, if one is missing.
    pub fn wanted(&self) -> Option<Wanted> {
        self.log.wanted().map(Wanted)
    }

    /// Takes a prepared segment.
    pub fn provide(&mut self, Made(header, file): Made<F::File>) {
        self.log.provide(header, file);
    }

    /// Whether messages are refused because there is no room on disk.
    pub fn is_disk_full(&self) -> bool {
        !self.is_all_written() || !self.log.has_room(4096, For::Messages)
    }

    /// Whether the last commit could write down everything. Without room on disk changes wait in memory: an
    /// operator should not be told that something is done which a crash could undo.
    pub fn is_all_written(&self) -> bool {
        self.is_opening_written && self.unwritten.is_empty()
    }

    /// Writes down that the broker stops in order, and that what was in flight is not any more. Returns after
    /// everything is on disk.
    pub fn close(mut self, now_ms: u64) -> Result<(), LogError> {
        self.deliveries.handle_all_gone(now_ms);
        self.commit()?;
        // With changes that found no room, the next start takes this for a crash, and counts what it may have been.
        if self.is_all_written() && self.log.has_room(16, For::Changes) {
            let last_seq = self.deliveries.last_seq();
            self.log
                .append(last_seq, |out| record::put(out, &Record::Closed))?;
        }
        self.log.sync()
    }

    /// See [`Deliveries::handle_ack`].
    pub fn handle_ack(&mut self, seq: Seq, receiver: ReceiverNo) -> bool {
        self.deliveries.handle_ack(seq, receiver)
    }

    /// See [`Deliveries::handle_nak`].
    pub fn handle_nak(
        &mut self,
        seq: Seq,
        receiver: ReceiverNo,
        from: InstanceId,
        delay_ms: Option<u64>,
        now_ms: u64,
    ) {
        self.deliveries.handle_nak(seq, receiver, from, delay_ms, now_ms);
    }

    /// See [`Deliveries::handle_progress`].
    pub fn handle_progress(&mut self, seq: Seq, receiver: ReceiverNo, from: InstanceId, now_ms: u64) {
        self.deliveries.handle_progress(seq, receiver, from, now_ms);
    }

    /// See [`Deliveries::handle_term`].
    pub fn handle_term(&mut self, seq: Seq, receiver: ReceiverNo, from: InstanceId, now_ms: u64) {
        self.deliveries.handle_term(seq, receiver, from, now_ms);
    }

    /// See [`Deliveries::handle_gone`].
    pub fn handle_gone(&mut self, instance: InstanceId, now_ms: u64) {
        self.deliveries.handle_gone(instance, now_ms);
    }

    /// See [`Deliveries::handle_not_taken`].
    pub fn handle_not_taken(&mut self, outgoing: &Outgoing, now_ms: u64) {
        self.deliveries.handle_not_taken(outgoing, now_ms);
    }

    /// See [`Deliveries::handle_time`].
    pub fn handle_time(&mut self, now_ms: u64) {
        self.deliveries.handle_time(now_ms);
    }

    /// See [`Deliveries::next_deadline_ms`].
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deliveries.next_deadline_ms()
    }

    /// See [`Deliveries::replay`]. In force after the next commit.
    pub fn replay(&mut self, seq: Seq, receiver: ReceiverNo, now_ms: u64) -> bool {
        self.deliveries.replay(seq, receiver, now_ms)
    }

    /// See [`Deliveries::drop_dead`]. In force after the next commit.
    pub fn drop_dead(&mut self, seq: Seq, receiver: ReceiverNo) -> bool {
        self.deliveries.drop_dead(seq, receiver)
    }

    /// See [`Deliveries::purge`]. In force after the next commit.
    pub fn purge(&mut self, service: &str) -> Vec<(Seq, ReceiverNo)> {
        self.deliveries.purge(service)
    }

    /// See [`Deliveries::set_quarantine`].
    pub fn set_quarantine(&mut self, quarantine: &Arc<Quarantine>, now_ms: u64) {
        self.deliveries.set_quarantine(quarantine, now_ms);
    }

    /// See [`Deliveries::discard_held`]. In force after the next commit.
    pub fn discard_held(&mut self, hold: &Hold, seq: Option<Seq>) -> usize {
        self.deliveries.discard_held(hold, seq)
    }

    /// See [`Deliveries::take_given_up`].
    pub fn take_given_up(&mut self) -> Vec<GivenUp> {
        self.deliveries.take_given_up()
    }

    /// See [`Deliveries::dead_letters`].
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter> {
        self.deliveries.dead_letters()
    }

    /// See [`Deliveries::depths`].
    pub fn depths(&self) -> impl Iterator<Item = (&Arc<str>, &QueueDepth)> {
        self.deliveries.depths()
    }

    /// The deliveries, to look at.
    pub const fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// How large the log is.
    pub fn size(&self) -> LogSize {
        self.log.size()
    }

    /// The files below.
    pub const fn files(&self) -> &F {
        self.log.files()
    }

    fn write_message(&mut self, seq: Seq, content: &Content) -> Result<(), LogError> {
        let kept = self.deliveries.kept(seq).expect("it is held");
        let id = content.id.as_deref();
        let place = self.log.append(self.deliveries.last_seq(), |out| {
            record::put_message(
                out,
                &kept,
                &content.sender,
                id,
                &content.headers,
                &content.payload,
            );
        })?;
        self.log.place(seq, place);
        if id.is_some() {
            self.log.place_id(seq, place);
        }
        Ok(())
    }

    /// Ids of the window outlive their messages: before their segment goes they are written again.
    fn carry_ids(&mut self) -> Result<(), LogError> {
        let Some(seqs) = self.log.ids_to_carry().filter(|seqs| !seqs.is_empty()) else {
            return Ok(());
        };
        let ids = self.deliveries.ids().filter(|(_, _, seq, _)| seqs.contains(seq));
        let records: Vec<_> = ids
            .map(|(sender, id, seq, at_ms)| Record::Id {
                sender: Arc::clone(sender),
                id: Arc::clone(id),
                seq,
                at_ms,
            })
            .collect();
        for record in &records {
            let Record::Id { seq, .. } = record else { continue };
            let Some(place) = self.append(ID_RECORD_BYTES_MAX, |out| record::put(out, record))? else {
                return Ok(());
            };
            self.log.place_id(*seq, place);
        }
        self.log.release_ids();
        Ok(())
    }

    fn append(&mut self, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<Option<Place>, LogError> {
        if !self.log.has_room(bytes, For::Changes) {
            return Ok(None);
        }
        self.log.append(self.deliveries.last_seq(), write).map(Some)
    }
}

/// What a message takes in the log, in bytes, at the most.
fn record_bytes(new: &NewMessage<'_>, headers: &[u8], payload: &[u8]) -> usize {
    let texts = new.sender.len() + new.name.len() + new.id.map_or(0, |id| id.len());
    let receivers: usize = new.receivers.iter().map(|service| service.len() + 32).sum();
    headers.len() + payload.len() + texts + receivers + 256
}

/// The youngest messages, in memory.
#[derive(Debug)]
struct Cache {
    bytes_max: usize,
    bytes: usize,
    contents: HashMap<Seq, Arc<Content>, foldhash::fast::RandomState>,
    by_age: VecDeque<Seq>,
}

impl Cache {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            contents: HashMap::default(),
            by_age: VecDeque::new(),
        }
    }

    fn get(&self, seq: Seq) -> Option<Arc<Content>> {
        self.contents.get(&seq).cloned()
    }

    fn insert(&mut self, seq: Seq, content: Arc<Content>) {
        self.bytes += content.bytes();
        self.contents.insert(seq, content);
        self.by_age.push_back(seq);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.remove(oldest);
        }
        // Those that were removed leave their sequence behind.
        if self.by_age.len() > 2 * self.contents.len() + 1024 {
            let contents = &self.contents;
            self.by_age.retain(|seq| contents.contains_key(seq));
        }
    }

    fn remove(&mut self, seq: Seq) {
        if let Some(content) = self.contents.remove(&seq) {
            self.bytes -= content.bytes();
        }
    }
}
