// Rates from counters: data planes tell how many requests they have answered, every
// few seconds.

// Rates remembers the counters of each data plane.
export class Rates {
  constructor() {
    this.known = new Map();
  }

  // add sets the rates of the data planes, now in seconds, as soon as their counters
  // have been told twice.
  add(planes, now) {
    const known = new Map();
    for (const d of planes) {
      const told = { at: now - d.lastContactSeconds, requests: d.requestsTotal, rate: undefined };
      const before = this.known.get(d.key);
      known.set(d.key, before ? next(before, told) : told);
      d.rate = d.state === "disconnected" ? undefined : known.get(d.key).rate;
    }
    this.known = known;
  }
}

const apart = 2; // seconds between two heartbeats, at least: an extra one says little

function next(before, told) {
  const seconds = told.at - before.at;
  if (told.requests < before.requests) return told; // it has started again
  if (seconds < apart) return before;
  return { ...told, rate: (told.requests - before.requests) / seconds };
}
