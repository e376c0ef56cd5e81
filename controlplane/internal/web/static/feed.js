// Feeds: documents of the control plane that are asked for again and again.

const limit = 10000; // milliseconds for an answer

// Feed asks for a document while the tab can be seen. The control plane may give an
// answer that it has given to another page within a second, and says 304 when nothing
// has changed.
export class Feed {
  // url is a function, so that a feed can follow what is shown; null: nothing is asked.
  // got is called with each new document; outcome, if given, after each question, with
  // the reason when there was no answer, else with "" and the age of the document in
  // seconds.
  constructor({ url, every, got, outcome = () => {} }) {
    Object.assign(this, { url, every, got, outcome, tag: "", asked: "", timer: 0, turn: 0 });
    document.addEventListener("visibilitychange", () => this.wake());
    this.wake();
  }

  // wake asks at once, or stops asking when nobody looks.
  wake() {
    clearTimeout(this.timer);
    const turn = ++this.turn; // an answer to an earlier question is not wanted any more
    if (!document.hidden) this.ask(turn);
  }

  async ask(turn) {
    const begun = performance.now();
    const url = this.url();
    if (url) {
      const outcome = await this.fetch(url).then((answer) => ["", answer], (error) => [reason(error)]);
      if (turn !== this.turn) return;
      this.take(...outcome);
    }
    const rest = this.every - (performance.now() - begun);
    this.timer = setTimeout(() => this.ask(turn), Math.max(rest, this.every / 4));
  }

  async fetch(url) {
    if (url !== this.asked) [this.asked, this.tag] = [url, ""];
    const headers = { "Cache-Control": "max-age=1" };
    if (this.tag) headers["If-None-Match"] = this.tag;
    const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(limit) });
    const [age, tag] = [Number(answer.headers.get("Age") ?? 0), answer.headers.get("ETag") ?? ""];
    if (answer.status === 304) return { age, tag };
    if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).slice(0, 200)}`);
    return { age, tag, document: await answer.json() };
  }

  take(reason, answer) {
    if (answer && "document" in answer) {
      this.tag = answer.tag;
      this.got(answer.document);
    }
    this.outcome(reason, answer?.age);
  }
}

function reason(error) {
  if (error.name === "TimeoutError") return `no answer for ${limit / 1000} s`;
  return error instanceof TypeError ? "no connection" : error.message;
}
