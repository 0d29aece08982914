-- Requests from a file with one body a line: wrk ... -s wrk.lua URL -- PATH TYPE FILE cycle|once [THINK_MS [HEADER]]
-- `cycle` keeps all lines in memory and repeats them; `once` sends each line at most once, and says so if
-- there were too few. The outcome is one line of JSON.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  path, once, think = args[1], args[4] == "once", tonumber(args[5] or "0")
  head = string.format("POST %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: wrk/4\r\nAccept: */*\r\n"
                         .. (args[6] and args[6] .. "\r\n" or "") .. "Content-Type: %s\r\nContent-Length: ",
                       path, wrk.host, wrk.port, args[2])
  file = assert(io.open(args[3]))
  requests, at, exhausted = {}, 0, 0
  if not once then
    for body in file:lines() do
      table.insert(requests, head .. #body .. "\r\n\r\n" .. body)
    end
  end
  if think > 0 then
    delay = function() return math.random(think / 2, think * 3 / 2) end
  end
end

function request()
  if once then
    local body = file:read("*l")
    if not body then
      exhausted = 1
      file:seek("set")
      body = file:read("*l")
    end
    return head .. #body .. "\r\n\r\n" .. body
  end
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local exhausted = 0
  for _, thread in ipairs(threads) do
    exhausted = exhausted + thread:get("exhausted")
  end
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50":%.1f,"p90":%.1f,"p99":%.1f,"p99_9":%.1f,"max":%.1f,'
      .. '"failures":%d,"exhausted":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency:percentile(99.9), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, exhausted))
end
