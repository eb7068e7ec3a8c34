//! One room of the fake node: plain messages gather until the next flush, reliable ones are told at once.

use std::sync::mpsc::Sender;

use super::frames::{Account, Batch, Message, Told};
use super::misdeed::Misdeed;

/// A frame for a device: nothing cuts its connection, an empty one holds up for 3.5 s what comes after.
pub(crate) type Frame = Option<Vec<u8>>;

pub(crate) struct Member {
    pub(crate) is_proto: bool,
    /// It joined after the first publish.
    pub(crate) is_late: bool,
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
    pub(crate) members: Vec<Member>,
    /// The counter's total.
    total: u64,
    pub(crate) head: u64,
    pub(crate) stored: Vec<Message>,
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
                Some(Batch { account, ..batch }.frame(&messages, member.is_proto))
            };
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
                        member.send(None);
                        continue;
                    }
                    _ => {}
                }
            }
            member.send(frame(&mine, account));
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
                member.send(Some(batch.frame(messages, member.is_proto)));
            };
            let is_chosen = index == 1;
            match misdeed {
                Misdeed::TellLate if is_chosen && offset == 3 => {
                    member.send(Some(Vec::new()));
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
