-- Porteiro's part in FreeSWITCH: asks the service who answers this call, and sees the call to its end.
--
--   <action application="lua" data="porteiro.lua"/>
--
-- A realtime call is answered and its audio streamed to Porteiro; when the stream ends, the call ends. Where the
-- service is down, full or refuses the call, or dies in the middle of it, the call goes to the attendant or to the
-- site's own service instead. Nobody is left in silence, and nothing here can open anything.
--
-- Channel variables, set in the dialplan before this (docs/freeswitch.md):
--   domain_uuid          the tenant's domain; FusionPBX has it. Without it, the number that was dialled says whose
--   porteiro_attendant   the attendant's extension
--   porteiro_legacy      the extension of the site's own service
--   porteiro_fallback    attendant (as it is) or legacy: which of them where Porteiro can't answer
--   porteiro_context     where those extensions are; without it, where this call is
-- Global variables, of vars.xml: what they hold does not get into call records.
--   porteiro_api         where the service is asked; without it, http://127.0.0.1:8082
--   porteiro_key         an API key of role pbx; porteiro_key_DOMAIN_UUID, where each domain has its own
--   porteiro_stream      ws://HOST:PORT or wss://HOST:PORT, where the audio goes elsewhere than the service says

local TICK_MS = 200           -- over 100: only then does FreeSWITCH send silence meanwhile
local ASK_CONNECT_S = 1
local ASK_S = 2
local STREAM_CONNECT_S = 5
local AFTERWARDS_MS = 2000    -- for so long the service may still send an ended call on, over the event socket
local MOST_TRIES = 3          -- a call may come here so often: its extensions could lead back
local MOST_CHARS = 64         -- of what the caller's side says of itself

local BRAZILS_RINGING = "%(1000,4000,425)"

local api = freeswitch.API()
local call = session:get_uuid()

local function log(level, text)
  -- Old versions print the text as a format. A profile may take a call's UUID from the caller's side.
  freeswitch.consoleLog(level, "porteiro: " .. (call .. " " .. text):gsub("[%c%%]", " "):sub(1, 340) .. "\n")
end

local function variable(name)
  local value = session:getVariable(name)
  if value == nil or value == "" then return nil end
  return value
end

local function setting(name)
  local value = freeswitch.getGlobalVariable(name)
  if value == nil or value == "" then return nil end
  return value
end

local function default(name, value)
  if variable(name) == nil then session:setVariable(name, value) end
end

-- A value that has this form and no other; nil, with a line of log, where it has another.
local function formed(name, value, pattern)
  if value == nil or value:match("^" .. pattern .. "$") then return value end
  log("err", name .. " has a value that can't be one")
  return nil
end

-- ---- Texts -----------------------------------------------------------------------------------------------------

local function url_encoded(text)
  return (text:gsub("[^%w._~-]", function(char) return string.format("%%%02X", char:byte()) end))
end

-- A JSON string in which nothing is left that FreeSWITCH's command line would read: no space, quote or backslash
-- but those of JSON's own escapes.
local function json_string(text)
  local escaped = text:sub(1, MOST_CHARS):gsub("[^%w+*#._@:-]", function(char)
    local code = char:byte()
    return code < 128 and string.format("\\u%04x", code) or "\\ufffd"
  end)
  return '"' .. escaped .. '"'
end

local UNESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- A flat JSON object's fields; nil where the text is anything else.
local function decoded(text)
  local at = 1

  local function take(pattern)
    local found = text:match("^" .. pattern, at)
    if found then at = at + #found end
    return found
  end

  local function take_string()
    if not take('"') then return nil end
    local parts = {}
    while true do
      parts[#parts + 1] = take('[^"\\%c]*')
      if take('"') then return table.concat(parts) end
      local escape = take('\\["\\/bfnrt]')
      local code = not escape and take("\\u%x%x%x%x")
      if escape then
        parts[#parts + 1] = UNESCAPED[escape:sub(2)] or escape:sub(2)
      elseif code then
        local number = tonumber(code:sub(3), 16)
        parts[#parts + 1] = number < 128 and string.char(number) or "?"
      else
        return nil
      end
    end
  end

  local function take_value()
    local value = take_string()
    if value then return value end
    return take("-?%d[%d.eE+-]*") or take("true") or take("false") or take("null")
  end

  local fields = {}
  if not take("%s*{%s*") then return nil end
  if take("}%s*") then return at == #text + 1 and fields or nil end
  while true do
    local name = take_string()
    if not name or not take("%s*:%s*") then return nil end
    local value = take_value()
    if not value then return nil end
    fields[name] = value
    if take("%s*}%s*") then return at == #text + 1 and fields or nil end
    if not take("%s*,%s*") then return nil end
  end
end

-- ---- The service -----------------------------------------------------------------------------------------------

local domain = formed("domain_uuid", variable("domain_uuid"), "[%x-]+")
local service = (formed("porteiro_api", setting("porteiro_api"), "https?://[%w.:%[%]/_-]+") or "http://127.0.0.1:8082")
  :gsub("/+$", "")

local function key()
  local own = domain and setting("porteiro_key_" .. domain)
  return formed("porteiro_key", own or setting("porteiro_key"), "[%w_.~+/=-]+")
end

-- What the service answers to a GET; nil where it answers nothing that can be read.
local function get(path)
  local command = service .. path .. " connect-timeout " .. ASK_CONNECT_S .. " timeout " .. ASK_S
  if service:match("^https") then command = command .. " secure" end
  local shown = key()
  if shown then command = command .. " append_headers 'Authorization: Bearer " .. shown .. "'" end
  local answer = api:execute("curl", command) or ""
  if answer:match("^%-?%u+ .*[Cc]ommand") or answer:match("^INVALID COMMAND") then
    log("err", "mod_curl is not loaded")
  end
  return decoded(answer)
end

-- Who answers; nil where the service is down or full, or does not know this call.
local function asked()
  local path = "/v1/route?call=" .. url_encoded(call)
  if domain then path = path .. "&domain_uuid=" .. url_encoded(domain) end
  local dialled = variable("destination_number")
  if dialled then path = path .. "&number=" .. url_encoded(dialled:sub(1, MOST_CHARS)) end
  local way = get(path)
  if way == nil then
    log("warning", "the service does not answer at " .. service)
  elseif way.mode == nil then
    log("warning", "the service refuses the call: " .. (way.status or "") .. " " .. (way.detail or ""))
    way = nil
  end
  return way
end

-- ---- The stream ------------------------------------------------------------------------------------------------

local MODULES = {
  stream = {
    command = "uuid_audio_stream",
    connected = "mod_audio_stream::connect",
    failed = "mod_audio_stream::error",
    ended = "mod_audio_stream::disconnect",
  },
  fork = {
    command = "uuid_audio_fork",
    connected = "mod_audio_fork::connect",
    failed = "mod_audio_fork::connect_failed",
    ended = "mod_audio_fork::disconnect",
  },
}

local function has(module)
  return (api:execute("module_exists", module) or ""):match("^true") ~= nil
end

local function module_of(playback)
  if playback == "fork" then return MODULES.fork end
  -- Which of its builds a mod_audio_stream is, nobody can ask it.
  if playback == "auto" and not has("mod_audio_stream") and has("mod_audio_fork") then return MODULES.fork end
  return MODULES.stream
end

local tells_keys = nil  -- one of them, while it streams and keys go with the stream

-- Keys go as text: no module sends them by itself. Without this function FreeSWITCH would not even tell them over
-- its event socket: it does as they are taken. A name that mod_lua finds must be global.
function porteiro_key_pressed(_, kind, pressed)
  if kind == "dtmf" and tells_keys and pressed.digit:match("^[%dA-Da-d*#]$") then
    api:execute(tells_keys.command, call .. ' send_text {"type":"dtmf","digit":"' .. pressed.digit .. '"}')
  end
  return "true"
end

local function metadata(way)
  local said = {
    '"caller_id":' .. json_string(variable("caller_id_number") or ""),
    '"extension":' .. json_string(variable("destination_number") or ""),
    '"domain":' .. json_string(variable("domain_name") or ""),
    '"direction":' .. json_string(variable("direction") or "inbound"),
    '"sample_rate":' .. (way.sample_rate == "16k" and 16000 or 8000),
    '"channels":' .. (way.mix == "stereo" and 2 or 1),
  }
  return "{" .. table.concat(said, ",") .. "}"
end

local function started(module, way, url)
  local rate = way.sample_rate == "16k" and "16k" or "8k"
  local mix = way.mix == "stereo" and "stereo" or "mono"
  local hertz = rate == "16k" and "16000" or "8000"
  local words = { call, "start", url, mix, rate }
  if module == MODULES.fork then
    default("send_silence_when_idle", "-1")  -- it plays into what the channel sends
    words[#words + 1] = "audio_fork"
    words[#words + 1] = metadata(way)
    words[#words + 1] = "true true " .. hertz
  else
    default("STREAM_PLAYBACK", "true")
    default("STREAM_SAMPLE_RATE", hertz)
    default("STREAM_BUFFER_SIZE", rate == "16k" and "40" or "20")
    default("STREAM_MESSAGE_DEFLATE", "true")  -- which switches it off
    default("STREAM_SUPPRESS_LOG", "true")
    default("STREAM_NO_RECONNECT", "true")
    words[#words + 1] = metadata(way)
  end
  if way.playback == "file" then default("playback_terminators", "none") end  -- else * ends what is played
  local answer = api:execute(module.command, table.concat(words, " ")) or ""
  if answer:sub(1, 3) == "+OK" then return true end
  log("err", module.command .. " does not start: " .. answer)
  return false
end

-- The code that the service ended a stream with; nil where the module does not tell.
local function close_code(event)
  return tonumber((event:getBody() or ""):match('"code"%s*:%s*(%d+)'))
end

-- Streams until the stream ends or the call is somebody else's. Whether the service did its part.
local function streamed(way)
  local module = module_of(way.playback)
  local url = way.stream or ""
  local place = formed("porteiro_stream", setting("porteiro_stream"), "wss?://[%w.:-]+")
  if place then url = url:gsub("^wss?://[^/]*", place) end
  if not formed("the stream's URL", url, "wss?://[%w.:-]+/[%w/._~?=-]+") then return false end

  local events = freeswitch.EventConsumer("CUSTOM", module.connected)
  events:bind("CUSTOM", module.failed)
  events:bind("CUSTOM", module.ended)
  session:answer()
  if not started(module, way, url) then return false end
  -- While files are played keys do not come here, but over the event socket all of them do.
  if way.playback ~= "file" then tells_keys = module end
  session:setInputCallback("porteiro_key_pressed", "")

  local began, connected, well = os.time(), false, nil
  while well == nil and session:ready() do
    session:sleep(TICK_MS)
    local event = events:pop(0)
    while event and well == nil do
      if event:getHeader("Unique-ID") == call then
        local name = event:getHeader("Event-Subclass")
        if name == module.connected then
          connected = true
        elseif name == module.failed then
          log("warning", "the stream failed: " .. (event:getBody() or ""))
          well = false
        elseif name == module.ended then
          local code = close_code(event)
          -- mod_audio_fork tells no code: a service that died answers nothing either.
          if code then well = code == 1000 else well = get("/health") ~= nil end
          if not well then log("warning", "the stream broke: " .. (event:getBody() or "")) end
        end
      end
      event = events:pop(0)
    end
    if well == nil and not connected and os.time() - began > STREAM_CONNECT_S then
      log("warning", "the stream does not connect")
      well = false
    end
  end
  session:unsetInputCallback()
  tells_keys = nil
  if well ~= nil then api:execute(module.command, call .. " stop") end
  return well ~= false
end

-- ---- The others ------------------------------------------------------------------------------------------------

-- Gives the call to the attendant or the site's own service, the other of them where there is none.
local function hand_over(first)
  if not session:ready() then return end
  local second = first == "legacy" and "attendant" or "legacy"
  local place = formed("porteiro_" .. first, variable("porteiro_" .. first), "[%w_.*#+-]+")
    or formed("porteiro_" .. second, variable("porteiro_" .. second), "[%w_.*#+-]+")
  local context = formed("the context", variable("porteiro_context") or variable("context"), "[%w_.-]+") or "default"
  local tries = (tonumber(variable("porteiro_tries")) or 0) + 1
  session:setVariable("porteiro_tries", tostring(tries))
  if place == nil or tries > MOST_TRIES then
    log("err", place and "the call comes back again and again" or "there is nobody to give the call to")
    session:hangup("NORMAL_TEMPORARY_FAILURE")
    return
  end
  default("ringback", BRAZILS_RINGING)
  default("transfer_ringback", BRAZILS_RINGING)
  default("instant_ringback", "true")
  log("info", "goes to " .. place)
  session:transfer(place, "XML", context)
end

local function fallback()
  return variable("porteiro_fallback") == "legacy" and "legacy" or "attendant"
end

local function run()
  session:setAutoHangup(false)
  if (tonumber(variable("porteiro_tries")) or 0) >= MOST_TRIES then return hand_over(fallback()) end
  session:execute("ring_ready")  -- what the caller hears while the service is asked
  local way = asked()
  if way == nil then return hand_over(fallback()) end
  if way.mode == "attendant" or way.mode == "legacy" then return hand_over(way.mode) end
  if way.mode ~= "realtime" then
    log("err", "knows no mode " .. way.mode)
    return hand_over(fallback())
  end
  if not streamed(way) then return hand_over(fallback()) end
  for _ = 1, AFTERWARDS_MS / TICK_MS do
    if not session:ready() then return end  -- hung up, or somebody took the call
    if variable("porteiro_then") == "attendant" then return hand_over("attendant") end
    session:sleep(TICK_MS)
  end
  session:hangup("NORMAL_CLEARING")
end

local well, problem = pcall(run)
if not well then
  log("err", tostring(problem))
  hand_over(fallback())
end
