// What is read again and again while a page is shown.

const first = 2000;
const most = 60000;

/**
 * Has load read when it is asked to: one at a time, so that no older answer comes last, at least so many milliseconds apart, and until it succeeds.
 * Those that wait are one, which has seen what each has.
 */
export function reader(load, apart) {
  const tokens = new Set(); // that the next has to have seen
  let next; // who waits for it
  let urgent = false;
  let busy = false;
  let due = 0;
  let pause = 0; // after a failure
  let timer;
  let ended = false;

  async function run() {
    const { answer } = next;
    const seen = [...tokens];
    const began = performance.now();
    next = undefined;
    urgent = false;
    busy = true;
    tokens.clear();
    try {
      await load(seen.length ? { 'Causal-Token': seen.join(', ') } : {});
      pause = 0;
      due = began + apart;
      answer();
    } catch (error) {
      for (const token of seen) tokens.add(token);
      pause = Math.min(most, pause ? 2 * pause : first);
      due = performance.now() + Math.max(pause * (0.5 + Math.random()), 1000 * (error.after || 0));
      answer(ended ? undefined : wait());
    }
    busy = false;
    schedule();
  }

  function wait() {
    if (!next) {
      next = {};
      next.done = new Promise((answer) => (next.answer = answer));
    }
    return next.done;
  }

  function schedule() {
    clearTimeout(timer);
    if (next && !busy && !ended) timer = setTimeout(run, urgent && !pause ? 0 : Math.max(0, due - performance.now()));
  }

  return {
    /** Is answered when what was there then, and what its token has seen, is read. Who cannot wait says so. */
    read({ 'Causal-Token': token } = {}, now = false) {
      if (ended) return Promise.resolve();
      if (token) tokens.add(token);
      urgent ||= now;
      const done = wait();
      schedule();
      return done;
    },
    end() {
      ended = true;
      clearTimeout(timer);
      next?.answer();
    },
  };
}
