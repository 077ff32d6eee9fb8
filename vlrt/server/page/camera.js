// A picture from the camera: a window on computers, the system's own camera on phones.

import { byId } from "./dom.js";

const REASONS = {
  NotAllowedError: "The browser was not allowed to use the camera.",
  NotFoundError: "There is no camera here.",
  NotReadableError: "Another program has the camera.",
};

export class Camera {
  #dialog = byId("camera");
  #video = byId("video");
  #take = byId("camera-take");
  #stream = null;
  #taken;

  // `taken` is called with the file.
  constructor(taken) {
    this.#taken = taken;
    this.#take.addEventListener("click", () => this.#capture());
    byId("camera-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#stop());
  }

  // Browsers lend the camera to secure pages alone; elsewhere, phones still offer theirs for files.
  async open() {
    if (!navigator.mediaDevices?.getUserMedia || matchMedia("(pointer: coarse)").matches) {
      byId("capture").click();
      return;
    }
    this.#take.hidden = true;
    byId("camera-note").textContent = "Waiting for the camera.";
    this.#dialog.showModal();
    try {
      const wanted = { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
      if (!this.#dialog.open) { // closed while the browser asked
        for (const track of stream.getTracks()) track.stop();
        return;
      }
      this.#stream = stream;
      this.#video.srcObject = stream;
      await this.#video.play();
      byId("camera-note").textContent = "";
      this.#take.hidden = false;
      this.#take.focus();
    } catch (error) {
      const reason = REASONS[error.name] ?? `The camera cannot be used: ${error.message}.`;
      byId("camera-note").textContent = `${reason} You can choose a picture instead.`;
    }
  }

  #capture() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    canvas.toBlob((blob) => {
      this.#dialog.close();
      this.#taken(new File([blob], "camera.jpg", { type: "image/jpeg" }));
    }, "image/jpeg", 0.92);
  }

  #stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
  }
}
