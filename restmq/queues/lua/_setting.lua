local function setting(name) return tonumber(call('HGET', SETTINGS, name) or 0) end
