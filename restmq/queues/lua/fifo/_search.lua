local function search(key) return call('ZSCORE', ORDERED, key) and true or false end
