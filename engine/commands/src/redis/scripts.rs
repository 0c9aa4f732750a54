//! What has to happen at once in Redis.

use std::sync::LazyLock;

use redis::Script;

/// Keys: meta, log. Argument: a name for the stream if it has none, which is the only case in which this writes: a server whose memory is
/// full refuses writes also where they would change nothing. Its name, the last ordinal, the name of the last publication, how
/// many messages there are.
pub(crate) static END: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local meta = redis.call('HMGET', KEYS[1], 's', 'n', 'l')
         if not meta[1] then
           redis.call('HSET', KEYS[1], 's', ARGV[1])
           meta[1] = ARGV[1]
         end
         return {meta[1], meta[2] or '0', meta[3] or '-', tostring(redis.call('XLEN', KEYS[2]))}",
    )
});

/// Keys: meta, log. Arguments: hint channel, the stream's name, its last ordinal, the name of the last publication and of this one, then
/// for each message its text and how many operations it has. The last ordinal, or -1 if the stream ends elsewhere.
pub(crate) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local meta = redis.call('HMGET', KEYS[1], 's', 'n', 'l')
         local n, before, name = tonumber(meta[2] or '0'), ARGV[4], ARGV[5]
         if meta[1] ~= ARGV[2] or n ~= tonumber(ARGV[3]) or (meta[3] or '-') ~= before then return -1 end
         for i = 6, #ARGV, 2 do
           n = n + 1
           local link = string.format('%.0f:%s:%s', n, before, name)
           redis.call('XADD', KEYS[2], '*', 'n', link, 'c', ARGV[i + 1], 'm', ARGV[i])
           before = name
         end
         redis.call('HSET', KEYS[1], 'n', string.format('%.0f', n), 'l', before)
         redis.call('PUBLISH', ARGV[1], '')
         return n",
    )
});

/// Keys: meta, log. Arguments: the id to read after, how many operations are wanted. The stream's name, the last ordinal, the name of the
/// last publication, then id, link and text of each message. Messages are fetched a few at a time: how many operations one has is in it.
///
/// The answer ends behind the message that makes it longer than 4 MiB, and so has one at least: Redis copies it whole, for each reader,
/// and one that is far behind asks again.
pub(crate) static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local meta = redis.call('HMGET', KEYS[1], 's', 'n', 'l')
         local out = {meta[1] or '', meta[2] or '0', meta[3] or '-'}
         local after, got, most, few, bytes = ARGV[1], 0, tonumber(ARGV[2]), 16, 0
         while true do
           local part = redis.call('XRANGE', KEYS[2], '(' .. after, '+', 'COUNT', few)
           for _, message in ipairs(part) do
             local fields = message[2]
             after = message[1]
             out[#out + 1] = after
             out[#out + 1] = fields[2] or ''
             out[#out + 1] = fields[6] or ''
             got = got + (tonumber(fields[4]) or 0)
             bytes = bytes + #out[#out]
             if got >= most or bytes > 4194304 then return out end
           end
           if #part < few or #out > 3000 then return out end
         end",
    )
});

/// Keys: meta, log. Arguments: a name for the stream if it has none, as in END; how many messages; the id up to which. As READ, the last
/// message first.
pub(crate) static HEAD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local meta = redis.call('HMGET', KEYS[1], 's', 'n', 'l')
         if not meta[1] then
           redis.call('HSET', KEYS[1], 's', ARGV[1])
           meta[1] = ARGV[1]
         end
         local out, bytes = {meta[1], meta[2] or '0', meta[3] or '-'}, 0
         for _, message in ipairs(redis.call('XREVRANGE', KEYS[2], ARGV[3], '-', 'COUNT', ARGV[2])) do
           out[#out + 1] = message[1]
           out[#out + 1] = message[2][2] or ''
           out[#out + 1] = message[2][6] or ''
           bytes = bytes + #out[#out]
           if bytes > 4194304 then return out end
         end
         return out",
    )
});

/// Key: log. Argument: milliseconds to keep. How many operations were removed, and 1 if there is more to remove: Redis does nothing
/// else meanwhile. The last message stays, as a head is made of it.
pub(crate) static TRIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
         if not last then return {0, 0} end
         local now = redis.call('TIME')
         local least = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[1])
         if least < 1 then return {0, 0} end
         local part = redis.call('XRANGE', KEYS[1], '-', string.format('(%.0f', least), 'COUNT', 64)
         local removed, ids = 0, {}
         for _, message in ipairs(part) do
           if message[1] ~= last[1] then
             removed = removed + (tonumber(message[2][4]) or 0)
             ids[#ids + 1] = message[1]
           end
         end
         if #ids > 0 then redis.call('XDEL', KEYS[1], unpack(ids)) end
         return {removed, #ids == 64 and 1 or 0}",
    )
});

/// Keys: lease, consumer. Arguments: token, milliseconds. 1 if taken.
pub(crate) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
         redis.call('HSET', KEYS[2], 'holder', ARGV[1])
         return 1",
    )
});

/// Keys: lease, consumer. Arguments: token, milliseconds. 1 if held, also after it has run out as long as nobody else has taken it.
pub(crate) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[2], 'holder') ~= ARGV[1] then return 0 end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
         return 1",
    )
});

/// Key: lease. Argument: token.
pub(crate) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         return redis.call('DEL', KEYS[1])",
    )
});

/// Key: consumer. Arguments: token, cursor. 1 if saved.
pub(crate) static SAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
         redis.call('HSET', KEYS[1], 'cursor', ARGV[2])
         return 1",
    )
});
