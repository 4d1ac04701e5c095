/** The peer does not speak SPDY/3.1 as agreed; the connection ends. */
export class SpdyError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(`SPDY: ${message}`, options);
    this.name = 'SpdyError';
  }
}
