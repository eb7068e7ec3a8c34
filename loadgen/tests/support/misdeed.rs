//! The promises that the fake node can break.

/// A promise that the node breaks: for its second device, and for the third batch or the third offset unless the misdeed
/// says otherwise.
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
    /// Not at all what a viewer door answers.
    NotRoomcast,
    /// None; chat is sampled to one message a flush, and each batch says how many were shed before it left.
    ShedAndSay,
    /// The same, but the third batch says one less.
    ShedAndSayLess,
    /// The same, but every batch says one more.
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
    /// Who joins after the first publish is given a welcome, and nothing more.
    ForgetLate,
    /// None, and at the operator door it says what its processor did: `PROCESSOR_US` more each time it is asked.
    SayProcessorTime,
    /// The frame with the offset is lost; the next says `after`, so the device can pull.
    LoseFrame,
    /// A frame says that nothing is missing.
    HideOffset,
    /// The device is told of no offset any more.
    TellNothing,
    /// Every frame is carried once more.
    CarryTwice,
    /// The offset comes 3.5 s late, and everything after it.
    TellLate,
    /// The first attempt is stored and answered 503, the second one is a duplicate.
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
    /// A message that nobody published.
    Invent,
    /// The message is answered 429 and stored.
    RefuseAndStore,
    /// An offset that is given to nobody.
    SkipOffset,
    /// Whoever comes back is told that his cursor is ahead.
    ResetFalsely,
    /// Whoever comes back is given everything from the beginning without a reset, and no epoch.
    KnowNothing,
    /// After the fourth offset of a room, every connection is cut and every room begins a new run.
    Restart,
    /// The same, and the last two offsets of each room are gone.
    RestartAndForget,
}
