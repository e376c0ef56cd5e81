// Numbers, times and names for people.

const whole = new Intl.NumberFormat("en-US");

export const count = (n) => whole.format(n);

export const plural = (n, thing) => `${count(n)} ${thing}${n === 1 ? "" : "s"}`;

// rate is a number per second, with as many digits as mean something.
export function rate(n) {
  if (n >= 1e6) return (n / 1e6).toFixed(n < 1e7 ? 2 : 1) + "M";
  if (n >= 1e4) return (n / 1e3).toFixed(n < 1e5 ? 1 : 0) + "k";
  if (n >= 100) return count(Math.round(n));
  if (n >= 10) return n.toFixed(1).replace(/\.0$/, "");
  return n.toFixed(2).replace(/\.?0+$/, "");
}

export function percent(share) {
  const p = share * 100;
  if (p === 0 || p === 100) return `${p}%`;
  if (p < 0.01) return "<0.01%";
  return `${p.toFixed(p < 1 ? 2 : 1)}%`;
}

// duration is a length of time in its largest unit.
export function duration(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const ago = (seconds) => (seconds < 1 ? "now" : `${duration(seconds)} ago`);

// short is the beginning of a version, as the command line shows it.
export const short = (version) => (version ? version.slice(0, 12) : "–");

// moment is a time of day, with the date when it is not today's.
export function moment(rfc3339) {
  const t = new Date(rfc3339);
  const time = t.toLocaleTimeString("en-GB");
  return t.toDateString() === new Date().toDateString() ? time : `${t.toLocaleDateString("en-CA")} ${time}`;
}
