//! The promises that the fake node can break.

/// A broken promise of the node: towards the second device, at the third batch or the third offset, unless
/// the misdeed says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misdeed {
    None,
    LoseOne,
    LoseOneForAll,
    SendTwice,
    PublishTwiceForAll,
    Swap,
    SwapForAll,
    AlterOneByte,
    PassOverWithoutAWord,
    PassOverAndSayExactly,
    PassOverAndMiscount,
    CutOff,
    ShedAndDeliver,
    /// Every publish: 503 `inbox_full`, and nothing is delivered.
    RefuseAll,
    /// Every publish: 500.
    FailAll,
    /// Every publish: 200, and each message a duplicate.
    DuplicateAll,
    /// One publish: 503 `inbox_full`, and its message is delivered.
    RefuseAndDeliver,
    /// One publish: 500, and its message is delivered.
    FailOne,
    /// After 30 plain messages no door answers any more, and each goes on accepting. Devices still get what was
    /// taken before.
    Hang,
    /// A viewer door that answers upgrades with 404.
    NotRoomcast,
    /// None. Chat is sampled to one message a flush, and each batch says the number of shed messages.
    ShedAndSay,
    /// Sampled chat, and the third batch says one less.
    ShedAndSayLess,
    /// Sampled chat, and every batch says one more.
    ShedAndSayMore,
    /// One gift is in no batch.
    LoseGift,
    /// The counter's totals are one off from the third batch on.
    MiscountTotal,
    /// The counter is one more for a device than for the others.
    MiscountForOne,
    /// Messages of one key are merged in each flush, and one of a merged message's counts is lost.
    MergeAndForget,
    /// Messages of one key are merged in each flush, exactly.
    Merge,
    /// A late joiner is given a welcome, and no further frame.
    ForgetLate,
    /// None. The operator door tells a processor time that grows by `PROCESSOR_US` with each question.
    SayProcessorTime,
    /// The frame with the offset is lost. The next frame has `after`, so the device can pull.
    LoseFrame,
    /// A frame moves past the offset without the message.
    HideOffset,
    /// The device is told no further offset.
    TellNothing,
    /// Every frame is carried once more.
    CarryTwice,
    /// The offset comes 3.5 s late, and so do all later ones.
    TellLate,
    /// The first attempt is stored and answered 503, the second is a duplicate.
    AnswerLate,
    /// The first attempt is stored and answered 503, and so is the second.
    StoreTwice,
    /// No device is told of the offset, and the store does not have it.
    AnswerOnly,
    /// The store does not have the offset after the run.
    ForgetOne,
    AlterPayload,
    AlterId,
    /// A message of another room.
    CrossRooms,
    /// An unpublished message.
    Invent,
    /// The message is answered 429 and stored.
    RefuseAndStore,
    /// An offset given to no message.
    SkipOffset,
    /// A returning device is told that its cursor is ahead.
    ResetFalsely,
    /// Welcomes have no epoch and no reliable messages.
    KnowNothing,
    /// After the fourth offset of a room, every connection is cut and every room begins a new run.
    Restart,
    /// A restart after which the last two offsets of each room are gone.
    RestartAndForget,
    /// None. After the fourth offset of a room the room begins a new run on the connections of its members: a
    /// welcome brings the offset. Plain messages have left before.
    TakeOver,
    /// None. A takeover that takes along what is gathered at its time, or next.
    TakeOverAndLose,
    /// A takeover with a welcome past the offset, without the message.
    TakeOverAndSkip,
    /// A takeover of which no member is told.
    TakeOverInSilence,
    /// The third batch lacks a message for all members at the second node.
    LoseOneBetweenNodes,
    /// None. The first node closes its members before their third batch, and names the second node.
    SendElsewhere,
}
