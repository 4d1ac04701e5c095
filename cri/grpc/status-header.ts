/**
 * The value of `grpc-message`: UTF-8, with what is no printable ASCII, and the percent sign, percent-encoded
 * (gRPC over HTTP/2, "Responses"). Lone surrogates become U+FFFD, as no UTF-8 can hold them.
 */
export function encodeStatusMessage(message: string): string {
  return message
    .toWellFormed()
    .replace(/[^\x20-\x24\x26-\x7e]+/g, (part) =>
      Buffer.from(part).reduce(
        (text, byte) => `${text}%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
        '',
      ),
    );
}
