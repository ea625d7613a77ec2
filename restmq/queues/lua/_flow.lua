-- Flow control of broadcasts. Redis closes a subscriber whose output buffer grows too large (by default above 32 MB, or
-- above 8 MB for a minute), and the messages in it are lost. So a queue never has more than a window of bytes on the
-- way to a daemon, and large values do not go through the channel at all.
--
-- 1. FLOW.sent counts the bytes published on the channel that not all daemons have confirmed.
-- 2. Each STEP bytes a round begins, unless one is open: 'sync <round>' is published behind the messages. A daemon that
--    receives it calls confirm.lua when it has delivered all messages before it and its consumers can take more.
-- 3. When as many daemons have confirmed as received it, the round ends: its bytes no longer count, and the smallest
--    window that a daemon granted is in force.
-- 4. When FLOW.sent reaches the window, HELD is set. Then nothing is published: messages that are added join the
--    backlog (add.lua), and the end of the round publishes it up to the window (_backlog.lua).
-- 5. HELD expires by itself. A round that is older than HELD_MS ends without the daemons that have not confirmed;
--    their number (FLOW.missing) is subtracted in later rounds, until one of these daemons confirms again. A daemon that
--    waits for its consumers asks for more time (hold.lua), HELD_MS_MAX at most. A time further ahead than that shows
--    that the clock of Redis was set back; it counts as past.
-- 6. A value above INLINE_MAX lies beside the channel, under the message's key: 'stored <bytes> <key>' is published, and
--    each daemon reads the value in its own time. The end of the round deletes the value. If the round is overdue, its
--    values stay for LATE_MS: a daemon may just be slow because its machine is busy.
-- 7. When Redis restarts or fails over, its daemons reconnect within about two seconds. Each of them begins with an empty
--    FLOW and HELD for HELD_MS_MAX, before it subscribes. So messages that are added meanwhile join the backlog, and are
--    not delivered to the consumers of the first daemon alone.
-- Taps have a channel and a flow of their own, of the same form (_tap.lua).
-- A maintainer must not publish a message on a channel but through _announce.lua, and must keep an expiry on each of
-- these keys: they hold only data on its way to daemons.
local STEP, FIRST_WINDOW, INLINE_MAX = 65536, 65536, 65536
local OVERHEAD = 64
local HELD_MS, HELD_MS_MAX, LATE_MS, KEPT_MS = 1000, 3000, 10000, 60000
