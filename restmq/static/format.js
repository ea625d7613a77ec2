// Formats numbers, times and sizes.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

/** A count: exact up to six digits, abbreviated from a million on. */
export function count(number) {
  return Math.abs(number) < 1e6 ? whole.format(number) : short.format(number);
}

/** A rate per second: one decimal below 10, "–" if unknown. */
export function rate(number) {
  if (number === null) return "–";
  if (number === 0) return "0";
  return number < 9.95 ? number.toFixed(1) : count(Math.round(number));
}

/** A duration in its two largest units. */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A duration in its largest unit, for a narrow column. */
export function age(milliseconds) {
  return duration(Math.max(0, milliseconds)).replace(/ min \d+ s$/, " min").replace(/(\d+) h \d+ min$/, "$1 h").replace(/ d \d+ h$/, " d");
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1048576) return `${(bytes / 1024).toFixed(bytes < 10240 ? 1 : 0)} KiB`;
  return bytes < 1073741824 ? `${(bytes / 1048576).toFixed(1)} MiB` : `${(bytes / 1073741824).toFixed(1)} GiB`;
}

/** The time of day. */
export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString("en-GB");
}

/** Date and time. */
export function stamp(milliseconds) {
  return `${new Date(milliseconds).toLocaleDateString("sv-SE")} ${clock(milliseconds)}`;
}

/** "1 message", "2 messages". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
