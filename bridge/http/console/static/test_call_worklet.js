// The sound of a test call, on the browser's audio thread: 16-bit PCM at the context's rate, which is 24 kHz.

const PIECE = 960; // samples of one message from the microphone: 40 ms
const BEGIN = 2400; // samples that wait before we begin to play: 100 ms of what a network jitters
const MOST = 9600; // beyond 400 ms what waits is late: we go on with the newest

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
  }

  process(inputs) {
    const samples = inputs[0][0];
    if (!samples) return true;
    for (const sample of samples) {
      this.piece[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32767)));
      if (this.filled === PIECE) {
        this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
        this.piece = new Int16Array(PIECE);
        this.filled = 0;
      }
    }
    return true;
  }
}

class Loudspeaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = [];
    this.at = 0; // in the first piece
    this.waiting = 0;
    this.playing = false;
    this.port.onmessage = ({ data }) => (data === "flush" ? this.flush() : this.take(new Int16Array(data)));
  }

  take(piece) {
    this.pieces.push(piece);
    this.waiting += piece.length;
    if (this.waiting > MOST) {
      while (this.waiting > BEGIN + PIECE) this.drop();
    }
  }

  drop() {
    this.waiting -= this.pieces.shift().length - this.at;
    this.at = 0;
  }

  flush() {
    this.pieces = [];
    this.at = this.waiting = 0;
    this.playing = false;
  }

  process(_, outputs) {
    const output = outputs[0][0];
    if (!this.playing && this.waiting >= BEGIN) this.playing = true;
    if (this.playing && this.waiting < output.length) this.playing = false;
    if (!this.playing) return true;
    for (let i = 0; i < output.length; i++) {
      output[i] = this.pieces[0][this.at++] / 32768;
      this.waiting--;
      if (this.at === this.pieces[0].length) {
        this.pieces.shift();
        this.at = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
registerProcessor("loudspeaker", Loudspeaker);
