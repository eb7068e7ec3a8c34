//! One room of the fake node: plain messages gather until the next flush, reliable ones are told at once.

use std::sync::mpsc::Sender;

use super::frames::{Account, Batch, EPOCH, Message, Told, Welcome};
use super::misdeed::Misdeed;

/// The next thing on a device's connection.
pub(crate) enum Frame {
    Bytes(Vec<u8>),
    /// All that follows comes 3.5 s late.
    Wait,
    /// The connection ends without a close.
    Cut,
    /// A close with the door of another node.
    Elsewhere(String),
}

pub(crate) struct Member {
    /// Its connection's place in the order of arrival at the door.
    pub(crate) arrival: usize,
    pub(crate) is_proto: bool,
    /// It joined after the first publish.
    pub(crate) is_late: bool,
    /// The number of its node.
    pub(crate) node: usize,
    /// The door of the node that its own node would send it to.
    pub(crate) elsewhere: Option<String>,
    pub(crate) frames: Sender<Frame>,
    /// Messages that it missed and has not been told of.
    pub(crate) missed: u64,
}

impl Member {
    pub(crate) fn send(&self, frame: Frame) {
        drop(self.frames.send(frame));
    }
}

#[derive(Default)]
pub(crate) struct Room {
    pub(crate) run: u64,
    pub(crate) seq: u64,
    pub(crate) gathered: Vec<Message>,
    /// In the order of arrival.
    pub(crate) members: Vec<Member>,
    /// The counter's total.
    total: u64,
    pub(crate) head: u64,
    pub(crate) stored: Vec<Message>,
    /// The next gathered messages go with a run that is over.
    loses_next: bool,
}

impl Room {
    fn batch<'a>(&self, room: &'a str, account: Account, told: Told) -> Batch<'a> {
        Batch { room, run: self.run, seq: self.seq, account, told, is_carried: false }
    }

    /// Takes out what leaves of the gathered messages, and the account of the rest.
    fn cut(&mut self, misdeed: Misdeed) -> (Vec<Message>, Account) {
        let now = self.seq == 3;
        let gathered = std::mem::take(&mut self.gathered);
        let is = |message: &Message, type_name: &str| message.type_name == type_name;
        let (likes, mut leaving): (Vec<_>, Vec<_>) =
            gathered.into_iter().partition(|message| is(message, "like"));
        let mut account = Account::default();
        if !likes.is_empty() {
            let add = likes.iter().map(|like| like.count).sum();
            self.total += add + u64::from(misdeed == Misdeed::MiscountTotal && now);
            account.likes = Some((add, self.total));
        }
        if matches!(misdeed, Misdeed::ShedAndSay | Misdeed::ShedAndSayLess | Misdeed::ShedAndSayMore) {
            let mut seen = 0;
            let before = leaving.len();
            leaving.retain(|message| {
                seen += u64::from(is(message, "chat"));
                !is(message, "chat") || seen == 1
            });
            account.skipped = (before - leaving.len()) as u64;
            account.skipped -= u64::from(misdeed == Misdeed::ShedAndSayLess && now);
            account.skipped += u64::from(misdeed == Misdeed::ShedAndSayMore);
        }
        if matches!(misdeed, Misdeed::Merge | Misdeed::MergeAndForget) {
            let mut kept: Vec<Message> = Vec::new();
            for message in leaving {
                match kept.iter_mut().find(|kept| is(kept, "gift") && kept.key == message.key) {
                    Some(first) if is(&message, "gift") => {
                        account.merged += 1;
                        let sum = first.count + message.count;
                        let count = sum - u64::from(misdeed == Misdeed::MergeAndForget);
                        *first = Message { count, ..message };
                    }
                    _ => kept.push(message),
                }
            }
            leaving = kept;
        }
        match misdeed {
            Misdeed::LoseOneForAll if now => drop(leaving.remove(0)),
            Misdeed::PublishTwiceForAll if now => leaving.push(leaving[0].clone()),
            Misdeed::SwapForAll if now => leaving.reverse(),
            Misdeed::LoseGift if now => {
                if let Some(gift) = leaving.iter().position(|message| is(message, "gift")) {
                    leaving.remove(gift);
                }
            }
            _ => {}
        }
        (leaving, account)
    }

    /// Sends the gathered messages to every member.
    pub(crate) fn flush(&mut self, name: &str, misdeed: Misdeed) {
        if self.gathered.is_empty() {
            return;
        }
        if std::mem::take(&mut self.loses_next) {
            return self.gathered.clear();
        }
        self.seq += 1;
        let now = self.seq == 3;
        let (leaving, account) = self.cut(misdeed);
        let batch = self.batch(name, account, Told::default());
        for (index, member) in self.members.iter_mut().enumerate() {
            if misdeed == Misdeed::ForgetLate && member.is_late {
                continue;
            }
            let mut mine = leaving.clone();
            let mut account = Account { skipped: account.skipped + member.missed, ..account };
            member.missed = 0;
            let frame = |mine: &[Message], account: Account| {
                let messages: Vec<&Message> = mine.iter().collect();
                Frame::Bytes(Batch { account, ..batch }.frame(&messages, member.is_proto))
            };
            if misdeed == Misdeed::LoseOneBetweenNodes && now && member.node == 1 {
                drop(mine.remove(0));
            }
            if let Some(door) =
                member.elsewhere.take_if(|_| misdeed == Misdeed::SendElsewhere && self.seq >= 3)
            {
                member.send(Frame::Elsewhere(door));
                continue;
            }
            if now && index == 1 {
                match misdeed {
                    Misdeed::LoseOne => drop(mine.remove(0)),
                    Misdeed::Swap => mine.reverse(),
                    Misdeed::SendTwice => member.send(frame(&mine, account)),
                    Misdeed::AlterOneByte => alter(&mut mine[0].payload),
                    Misdeed::MiscountForOne => {
                        account.likes = account.likes.map(|(add, total)| (add + 1, total + 1));
                    }
                    Misdeed::PassOverWithoutAWord => continue,
                    Misdeed::PassOverAndSayExactly => {
                        member.missed = mine.len() as u64;
                        continue;
                    }
                    Misdeed::PassOverAndMiscount => {
                        member.missed = mine.len() as u64 + 1;
                        continue;
                    }
                    Misdeed::CutOff => {
                        member.send(Frame::Cut);
                        continue;
                    }
                    _ => {}
                }
            }
            member.send(frame(&mine, account));
        }
    }

    /// Begins a new run behind `newest`, the head of the stream, on the connections of all members.
    pub(crate) fn take_over(&mut self, name: &str, newest: &Message, misdeed: Misdeed) {
        self.loses_next = misdeed == Misdeed::TakeOverAndLose;
        self.flush(name, misdeed);
        self.run += 1;
        self.seq = 0;
        if misdeed == Misdeed::TakeOverInSilence {
            return;
        }
        let told = Told { after: newest.offset - 1, through: newest.offset };
        let reliable = if misdeed == Misdeed::TakeOverAndSkip { Vec::new() } else { vec![newest] };
        let welcome = Welcome { room: name, run: self.run, seq: 0, epoch: EPOCH, reset: "", told, reliable };
        for member in &self.members {
            member.send(Frame::Bytes(welcome.frame(member.is_proto)));
        }
    }

    /// Sends the newest reliable message to every member.
    pub(crate) fn tell(&mut self, name: &str, newest: &Message, misdeed: Misdeed) {
        self.seq += 1;
        let offset = newest.offset;
        let after = offset - 1;
        let batch = self.batch(name, Account::default(), Told { after, through: offset });
        let silent = Batch { told: Told::default(), ..batch };
        for (index, member) in self.members.iter().enumerate() {
            let send = |batch: Batch<'_>, messages: &[&Message]| {
                member.send(Frame::Bytes(batch.frame(messages, member.is_proto)));
            };
            let is_chosen = index == 1;
            match misdeed {
                Misdeed::TellLate if is_chosen && offset == 3 => {
                    member.send(Frame::Wait);
                    send(batch, &[newest]);
                }
                Misdeed::LoseFrame if is_chosen && offset == 3 => send(silent, &[]),
                Misdeed::HideOffset if is_chosen && offset == 3 => send(batch, &[]),
                Misdeed::TellNothing if is_chosen && offset >= 3 => send(silent, &[]),
                Misdeed::AnswerOnly if offset == 3 => send(silent, &[]),
                Misdeed::AnswerOnly if offset == 4 => {
                    send(Batch { told: Told { after: 2, through: offset }, ..batch }, &[newest]);
                }
                Misdeed::AlterPayload if is_chosen && offset == 3 => {
                    let payload = newest.payload.replace(|letter: char| letter.is_ascii_uppercase(), "_");
                    send(batch, &[&Message { payload, ..newest.clone() }]);
                }
                Misdeed::AlterId if is_chosen && offset == 3 => {
                    send(batch, &[&Message { id: "lg-other".into(), ..newest.clone() }]);
                }
                Misdeed::Invent if is_chosen && offset == 3 => {
                    let id = "lg-1".to_owned();
                    let payload = "\"free money\"".to_owned();
                    send(batch, &[&Message { type_name: "coupon".into(), id, payload, ..newest.clone() }]);
                }
                Misdeed::CarryTwice => {
                    send(batch, &[newest]);
                    send(Batch { is_carried: true, ..batch }, &[newest]);
                }
                _ => send(batch, &[newest]),
            }
        }
    }
}

/// Changes the last letter of a payload.
fn alter(payload: &mut String) {
    let last = payload.len() - 2;
    let other = if payload.as_bytes()[last] == b'x' { "y" } else { "x" };
    payload.replace_range(last..=last, other);
}
